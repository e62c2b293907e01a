-- Recovery: which execution recovers which, what ran with equal inputs, and jobs that recover many.

ALTER TABLE execution_specs ADD COLUMN recovers {text};      -- name of an execution in the same project and domain; NULL: none
ALTER TABLE execution_specs ADD COLUMN inputs_digest {blob}; -- of its inputs, one zero byte where there are none; NULL: written by an earlier release

CREATE INDEX execution_specs_recovers ON execution_specs (recovers) WHERE recovers IS NOT NULL;
CREATE INDEX execution_specs_inputs ON execution_specs (workflow_name, inputs_digest) WHERE inputs_digest IS NOT NULL;

CREATE TABLE recovery_jobs (
  number {serial},
  name {text} NOT NULL UNIQUE CHECK (name <> ''),
  project {text} NOT NULL,
  domain {text} NOT NULL,
  ended BIGINT NOT NULL CHECK (ended IN (0, 1)),
  version BIGINT NOT NULL CHECK (version > 0),
  owner {text} NOT NULL, -- empty: free
  expires BIGINT NOT NULL,
  record {blob} NOT NULL -- aloft.v1.RecoveryJob; its version is the column
);

CREATE INDEX recovery_jobs_open ON recovery_jobs (number) WHERE ended = 0;

CREATE TABLE recovery_items (
  job BIGINT NOT NULL REFERENCES recovery_jobs (number),
  position BIGINT NOT NULL,
  record {blob} NOT NULL, -- aloft.v1.RecoveryItem
  PRIMARY KEY (job, position)
) {clustered};
