-- Cached results, who is computing one, and who waits for that.

CREATE TABLE datasets (
  number {serial},
  project {text} NOT NULL,
  domain {text} NOT NULL,
  name {text} NOT NULL CHECK (name <> ''),
  version {text} NOT NULL,
  created_at BIGINT NOT NULL,
  record {blob}, -- datacatalog.Dataset: metadata and partition keys
  UNIQUE (project, domain, name, version)
);

-- One row is everything about a result: a commit that makes one findable writes one row.
CREATE TABLE results (
  number {serial}, -- also the order of creation
  id {text} NOT NULL UNIQUE CHECK (id <> ''),
  project {text} NOT NULL,
  domain {text} NOT NULL,
  name {text} NOT NULL,
  version {text} NOT NULL,
  tag {text} CHECK (tag <> ''), -- the first one
  created_at BIGINT NOT NULL,
  used_at BIGINT NOT NULL,
  size BIGINT NOT NULL,
  pinned BIGINT NOT NULL CHECK (pinned IN (0, 1)),
  gone_at BIGINT NOT NULL, -- 0: it can be found
  gone_reason {text},
  source_project {text}, -- which attempt computed it; NULL: somebody outside of the engine
  source_domain {text},
  source_execution {text},
  source_node {text},
  source_attempt BIGINT NOT NULL,
  outputs {blob},  -- aloft.v1.Literals
  objects {blob},  -- aloft.v1.Outcome, of which objects are set
  cache_key {blob}, -- aloft.v1.CacheKey
  artifact {blob}  -- datacatalog.Artifact: metadata and partitions
);

-- A tag names one result.
CREATE UNIQUE INDEX results_tag ON results (project, domain, name, version, tag) WHERE gone_at = 0 AND tag IS NOT NULL;
CREATE INDEX results_source ON results (source_project, source_domain, source_execution) WHERE source_execution IS NOT NULL;
CREATE INDEX results_dataset ON results (project, domain, name);

-- Further tags of results, which the engine never gives.
CREATE TABLE result_tags (
  project {text} NOT NULL,
  domain {text} NOT NULL,
  name {text} NOT NULL,
  version {text} NOT NULL,
  tag {text} NOT NULL CHECK (tag <> ''),
  result {text} NOT NULL REFERENCES results (id),
  PRIMARY KEY (project, domain, name, version, tag)
);

CREATE INDEX result_tags_result ON result_tags (result);

CREATE TABLE reservations (
  result {text} NOT NULL PRIMARY KEY, -- what those are parked on who wait
  owner {text} NOT NULL,
  execution BIGINT REFERENCES executions (number), -- NULL: somebody outside of the engine
  node {text},
  heartbeat BIGINT NOT NULL, -- nanoseconds
  expires BIGINT NOT NULL
);

CREATE TABLE reservation_waiters (
  result {text} NOT NULL,
  execution BIGINT NOT NULL REFERENCES executions (number),
  PRIMARY KEY (result, execution)
);

ALTER TABLE nodes ADD COLUMN cache {blob}; -- aloft.v1.CacheLookup
ALTER TABLE nodes ADD COLUMN waiting {text}; -- what the node waits for outside of its execution
