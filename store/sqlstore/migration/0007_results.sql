-- PostgreSQL, until it has counted a new table, takes any part of a tag's five columns to be as good as all of them, and reads
-- all results of a task to find one. It has no choice if the tag comes first in the one index, and the other, for lists of a
-- task's results, asks for a condition that no lookup states.
DROP INDEX results_tag;
CREATE UNIQUE INDEX results_tag ON results (tag, name, project, domain, version) WHERE gone_at = 0 AND tag IS NOT NULL;
DROP INDEX results_dataset;
CREATE INDEX results_dataset ON results (project, domain, name, number) WHERE number > 0;

-- What an execution still has reserved when it ends.
CREATE INDEX reservations_execution ON reservations (execution, result) WHERE execution IS NOT NULL;
