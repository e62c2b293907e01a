-- PostgreSQL, until it has counted a new table, takes any part of a key's columns to be as good as all of them, and reads all
-- results of a task, or all executions of a project, to find one. So no lookup can use an index for lists: these ask for a
-- condition that is always true and that lists alone state. And a tag comes first in the index that finds it.
DROP INDEX results_tag;
CREATE UNIQUE INDEX results_tag ON results (tag, name, project, domain, version) WHERE gone_at = 0 AND tag IS NOT NULL;
DROP INDEX results_dataset;
CREATE INDEX results_dataset ON results (project, domain, name, number) WHERE number > 0;
DROP INDEX executions_created;
CREATE INDEX executions_created ON executions (project, domain, created_at, number) WHERE number > 0;

-- What an execution still has reserved when it ends.
CREATE INDEX reservations_execution ON reservations (execution, result) WHERE execution IS NOT NULL;
