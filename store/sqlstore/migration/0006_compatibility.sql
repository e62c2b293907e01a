-- Releases run side by side while a cluster is upgraded: a newer one that only adds to the schema leaves this as it is, and the
-- one before may go on, and start again, on what the newer one has made.
CREATE TABLE compatibility (
  oldest BIGINT NOT NULL CHECK (oldest > 0) -- the oldest schema whose release may use this database
);

INSERT INTO compatibility (oldest) VALUES (6);
