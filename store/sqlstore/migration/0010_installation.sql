-- Which things belong together.

-- The process that an instance is now: two that have copies of one data folder are told apart by it.
ALTER TABLE instances ADD COLUMN nonce {text} NOT NULL DEFAULT '';

-- The blob store of this database. Its id is an object in it, too.
CREATE TABLE installation (
  one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
  blobs {text} NOT NULL CHECK (blobs <> ''),
  sealed BIGINT NOT NULL CHECK (sealed IN (0, 1)) -- the blob store has the id, too
) {clustered};
