-- Several engines on one database.

-- Who shares the shards: an engine says that it is there each time it renews its leases, also while it has none.
CREATE TABLE engines (
  id {text} NOT NULL PRIMARY KEY CHECK (id <> ''), -- the owner in its leases
  expires BIGINT NOT NULL
);

-- Rows of nodes and attempts are only ever inserted in the transaction of a journal entry of their execution, whose foreign
-- key holds the execution. Where a check costs a query of its own, the one of the entry is enough for all of them.
{rows_follow_journal}
