-- The tables of the spine: projects and versions, executions with inbox, journal and records, attempts, leases.
--
-- Written once for every database: what differs stands in braces and comes from the dialect. Times are Unix times in
-- nanoseconds and 0 where there is none; text is empty where there is none; phases and states are the protocol's numbers.

CREATE TABLE projects (
  number {serial},
  id {text} NOT NULL UNIQUE CHECK (id <> ''),
  name {text} NOT NULL,
  description {text} NOT NULL,
  state BIGINT NOT NULL CHECK (state BETWEEN 0 AND 3),
  record {blob} NOT NULL -- flyteidl.admin.Project
);

INSERT INTO projects (id, name, description, state, record) VALUES ('flytesnacks', 'flytesnacks', '', 0, {bytes:0a0b666c797465736e61636b73120b666c797465736e61636b73});

CREATE TABLE tasks (
  number {serial},
  project {text} NOT NULL CHECK (project <> ''),
  domain {text} NOT NULL CHECK (domain <> ''),
  name {text} NOT NULL CHECK (name <> ''),
  version {text} NOT NULL CHECK (version <> ''),
  type {text} NOT NULL,
  short_description {text} NOT NULL,
  digest {blob},
  created_at BIGINT NOT NULL,
  description {blob},       -- flyteidl.admin.DescriptionEntity
  compiled {blob} NOT NULL, -- flyteidl.core.CompiledTask
  UNIQUE (project, domain, name, version)
);

CREATE TABLE workflows (
  number {serial},
  project {text} NOT NULL CHECK (project <> ''),
  domain {text} NOT NULL CHECK (domain <> ''),
  name {text} NOT NULL CHECK (name <> ''),
  version {text} NOT NULL CHECK (version <> ''),
  short_description {text} NOT NULL,
  generated BIGINT NOT NULL CHECK (generated IN (0, 1)),
  digest {blob},
  created_at BIGINT NOT NULL,
  description {blob},
  summary {blob} NOT NULL,  -- the closure without its graph, for lists
  compiled {blob} NOT NULL, -- flyteidl.core.CompiledWorkflowClosure
  UNIQUE (project, domain, name, version)
);

CREATE TABLE launch_plans (
  number {serial},
  project {text} NOT NULL CHECK (project <> ''),
  domain {text} NOT NULL CHECK (domain <> ''),
  name {text} NOT NULL CHECK (name <> ''),
  version {text} NOT NULL CHECK (version <> ''),
  state BIGINT NOT NULL CHECK (state IN (0, 1)),
  generated BIGINT NOT NULL CHECK (generated IN (0, 1)),
  schedule_type {text} NOT NULL,
  workflow_project {text} NOT NULL,
  workflow_domain {text} NOT NULL,
  workflow_name {text} NOT NULL,
  workflow_version {text} NOT NULL,
  digest {blob},
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  spec {blob} NOT NULL,    -- flyteidl.admin.LaunchPlanSpec
  closure {blob} NOT NULL, -- flyteidl.admin.LaunchPlanClosure; its state and times are the columns
  UNIQUE (project, domain, name, version)
);

CREATE UNIQUE INDEX launch_plans_active ON launch_plans (project, domain, name) WHERE state = 1;

-- An epoch is what fences commits: it grows each time the shard changes hands.
CREATE TABLE shards (
  shard BIGINT NOT NULL PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
  owner {text} NOT NULL, -- empty: free
  epoch BIGINT NOT NULL,
  expires BIGINT NOT NULL
);

WITH RECURSIVE all_shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM all_shards WHERE shard < 63)
INSERT INTO shards (shard, owner, epoch, expires) SELECT shard, '', 0, 0 FROM all_shards;

-- What changes while an execution runs, and what lists are narrowed and sorted by. Kept small: it is rewritten often.
CREATE TABLE executions (
  number {serial_for_ever},
  shard BIGINT NOT NULL REFERENCES shards (shard),
  project {text} NOT NULL CHECK (project <> ''),
  domain {text} NOT NULL CHECK (domain <> ''),
  name {text} NOT NULL CHECK (name <> ''),
  journal_version BIGINT NOT NULL CHECK (journal_version > 0),
  phase BIGINT NOT NULL,
  ended BIGINT NOT NULL CHECK (ended IN (0, 1)),
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  ended_at BIGINT NOT NULL,
  due_at BIGINT NOT NULL CHECK (due_at = 0 OR ended = 0),
  waiting {text} NOT NULL,
  abort_cause {text} NOT NULL,
  abort_principal {text} NOT NULL,
  state BIGINT NOT NULL CHECK (state IN (0, 1)),
  state_changed_at BIGINT NOT NULL,
  state_principal {text} NOT NULL,
  error_kind {text} NOT NULL,
  error_code {text} NOT NULL,
  error {blob},  -- flyteidl.core.ExecutionError
  outputs {blob}, -- aloft.v1.Literals; written with the last change
  UNIQUE (project, domain, name)
);

CREATE INDEX executions_created ON executions (project, domain, created_at);
CREATE INDEX executions_due ON executions (due_at) WHERE due_at > 0;
CREATE INDEX executions_open ON executions (number) WHERE ended = 0;

-- What never changes of an execution, which can be large.
CREATE TABLE execution_specs (
  execution BIGINT NOT NULL PRIMARY KEY REFERENCES executions (number),
  mode BIGINT NOT NULL,
  principal {text} NOT NULL,
  launch_entity {text} NOT NULL CHECK (launch_entity IN ('launch_plan', 'task')),
  launch_project {text} NOT NULL,
  launch_domain {text} NOT NULL,
  launch_name {text} NOT NULL,
  launch_version {text} NOT NULL,
  workflow_project {text} NOT NULL,
  workflow_domain {text} NOT NULL,
  workflow_name {text} NOT NULL,
  workflow_version {text} NOT NULL,
  workflow {blob},      -- flyteidl.core.Identifier
  task {blob},          -- flyteidl.core.Identifier
  notifications {blob}, -- flyteidl.admin.NotificationList
  spec {blob},          -- flyteidl.admin.ExecutionSpec
  inputs {blob},        -- aloft.v1.Literals
  user_inputs {blob}    -- aloft.v1.Literals
);

-- The one way into an execution. A row is deleted by the commit that consumes it.
CREATE TABLE inbox (
  number {serial_for_ever},
  execution BIGINT NOT NULL REFERENCES executions (number),
  shard BIGINT NOT NULL,
  dedup {text} NOT NULL CHECK (dedup <> ''),
  message {blob} NOT NULL, -- aloft.v1.Inbox
  UNIQUE (execution, dedup)
);

-- The truth: the state of an execution is the fold of its entries.
CREATE TABLE journal (
  execution BIGINT NOT NULL REFERENCES executions (number),
  seq BIGINT NOT NULL CHECK (seq > 0),
  commit_id {text} NOT NULL CHECK (commit_id <> ''),
  entry {blob} NOT NULL, -- aloft.v1.JournalEntry
  PRIMARY KEY (execution, seq)
) {clustered};

CREATE TABLE nodes (
  number {serial},
  execution BIGINT NOT NULL REFERENCES executions (number),
  node {text} NOT NULL CHECK (node <> ''),
  parent {text}, -- text and blobs that most rows lack are NULL, which costs nothing to write
  spec_node_id {text},
  name {text},
  retry_group {text},
  flags BIGINT NOT NULL, -- 1 is parent, 2 is dynamic, 4 is array
  phase BIGINT NOT NULL,
  ended BIGINT NOT NULL CHECK (ended IN (0, 1)),
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  ended_at BIGINT NOT NULL,
  deck_uri {text},
  error {blob},    -- flyteidl.core.ExecutionError
  target {blob},   -- flyteidl.core.Identifier
  metadata {blob}, -- flyteidl.admin.TaskNodeMetadata
  inputs {blob},   -- aloft.v1.Literals
  outputs {blob},  -- aloft.v1.Literals
  UNIQUE (execution, node)
);

CREATE TABLE attempts (
  number {serial}, -- also the order of creation
  execution BIGINT NOT NULL REFERENCES executions (number),
  node {text} NOT NULL CHECK (node <> ''),
  attempt BIGINT NOT NULL,
  token {text} NOT NULL,
  phase BIGINT NOT NULL,
  ended BIGINT NOT NULL CHECK (ended IN (0, 1)),
  by_engine BIGINT NOT NULL CHECK (by_engine IN (0, 1)),
  lost BIGINT NOT NULL CHECK (lost IN (0, 1)),
  not_before BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  ended_at BIGINT NOT NULL,
  executor {text} CHECK (executor IS NULL OR executor <> '' AND by_engine = 0), -- the instance that has it
  waiting {text},
  stop {text} CHECK (stop <> ''),
  deck_uri {text},
  environment {text},
  error {blob},   -- flyteidl.core.ExecutionError
  outputs {blob}, -- aloft.v1.LiteralRef
  objects {blob}, -- aloft.v1.Outcome, of which objects are set
  usage {blob},   -- aloft.v1.AttemptUsage
  spec {blob},    -- aloft.v1.AttemptSpec
  UNIQUE (execution, node, attempt)
);

CREATE INDEX attempts_waiting ON attempts (number) WHERE ended = 0 AND by_engine = 0 AND executor IS NULL AND stop IS NULL;
CREATE INDEX attempts_executor ON attempts (executor) WHERE ended = 0 AND executor IS NOT NULL;

CREATE TABLE instances (
  id {text} NOT NULL PRIMARY KEY CHECK (id <> ''),
  kind {text} NOT NULL,
  place {text} NOT NULL,
  milli_cpu BIGINT NOT NULL,
  memory BIGINT NOT NULL,
  slots BIGINT NOT NULL,
  seen_at BIGINT NOT NULL,
  expires BIGINT NOT NULL
);
