-- Lists of versions, of all names and of one, in the order in which they were registered: without these indexes a page costs
-- as much as there are versions. Each asks for a condition that is always true and that lists alone state, so that no lookup
-- takes it (see 0007). The names are gathered from the second kind without a look at the rows.
CREATE INDEX tasks_created ON tasks (project, domain, created_at, number) WHERE number > 0;
CREATE INDEX tasks_named ON tasks (project, domain, name, created_at, number) WHERE number > 0;
CREATE INDEX workflows_created ON workflows (project, domain, created_at, number) WHERE number > 0;
CREATE INDEX workflows_named ON workflows (project, domain, name, created_at, number, generated) WHERE number > 0;
CREATE INDEX launch_plans_created ON launch_plans (project, domain, created_at, number) WHERE number > 0;
CREATE INDEX launch_plans_named ON launch_plans (project, domain, name, created_at, number, generated) WHERE number > 0;

-- What succeeded later with equal inputs is found from its end: a pipeline that runs every hour has the same inputs each time.
DROP INDEX execution_specs_inputs;
CREATE INDEX execution_specs_inputs ON execution_specs (workflow_name, inputs_digest, execution) WHERE inputs_digest IS NOT NULL;

-- Causes of terminations are looked for among the executions that have one.
CREATE INDEX executions_aborted ON executions (project, domain, created_at, number) WHERE abort_cause <> '';
