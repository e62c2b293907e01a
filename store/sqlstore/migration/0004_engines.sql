-- Who shares the shards: an engine says that it is there each time it renews its leases, also while it has none.
CREATE TABLE engines (
  id {text} NOT NULL PRIMARY KEY CHECK (id <> ''), -- the owner in its leases
  expires BIGINT NOT NULL
);
