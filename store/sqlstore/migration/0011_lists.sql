-- Lists of executions are narrowed by what few of them have, in the order of their creation: an index for each, as narrow as
-- it can be. Each asks for a condition that is always true and that lists alone state, so that no lookup takes it (see 0007).
--
-- What never changes stands beside what an execution is found by, with its place in the order.
ALTER TABLE execution_specs ADD COLUMN project {text} NOT NULL DEFAULT '';
ALTER TABLE execution_specs ADD COLUMN domain {text} NOT NULL DEFAULT '';
ALTER TABLE execution_specs ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;
UPDATE execution_specs SET project = e.project, domain = e.domain, created_at = e.created_at FROM executions e WHERE e.number = execution_specs.execution;
ALTER TABLE execution_tags ADD COLUMN project {text} NOT NULL DEFAULT '';
ALTER TABLE execution_tags ADD COLUMN domain {text} NOT NULL DEFAULT '';
ALTER TABLE execution_tags ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;
UPDATE execution_tags SET project = e.project, domain = e.domain, created_at = e.created_at FROM executions e WHERE e.number = execution_tags.execution;

-- The release before, which may run beside this one, writes rows without them.
{place_specs}
{place_tags}

-- What every list asks for, and what people search by, needs no look at the row.
DROP INDEX executions_created;
CREATE INDEX executions_created ON executions (project, domain, created_at, number, state, name) WHERE number > 0;
CREATE INDEX executions_phase ON executions (project, domain, phase, created_at, number) WHERE number > 0;
CREATE INDEX executions_error ON executions (project, domain, error_code, created_at, number) WHERE error_code <> '';

-- Times of what has ended never change; what has not ended is in executions_open.
CREATE INDEX executions_started ON executions (project, domain, started_at, number) WHERE ended = 1;
CREATE INDEX executions_updated ON executions (project, domain, updated_at, number) WHERE ended = 1;
CREATE INDEX executions_lasted ON executions (project, domain, (CASE WHEN started_at > 0 AND ended_at > 0 THEN ended_at - started_at ELSE 0 END), number) WHERE ended = 1;

CREATE INDEX execution_specs_workflow ON execution_specs (project, domain, workflow_name, created_at, execution) WHERE execution > 0;
CREATE INDEX execution_specs_workflow_version ON execution_specs (project, domain, workflow_version, created_at, execution) WHERE execution > 0;
CREATE INDEX execution_specs_launch ON execution_specs (project, domain, launch_name, created_at, execution) WHERE execution > 0;
CREATE INDEX execution_specs_launch_version ON execution_specs (project, domain, launch_version, created_at, execution) WHERE execution > 0;
CREATE INDEX execution_specs_mode ON execution_specs (project, domain, mode, created_at, execution) WHERE execution > 0;
CREATE INDEX execution_specs_principal ON execution_specs (project, domain, principal, created_at, execution) WHERE principal <> '';

CREATE INDEX execution_tags_execution ON execution_tags (execution);
CREATE INDEX execution_tags_key ON execution_tags (project, domain, key, created_at, execution);
CREATE INDEX execution_tags_value ON execution_tags (project, domain, key, value, created_at, execution);
