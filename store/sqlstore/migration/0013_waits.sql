-- How many things an execution and its nodes wait for that are outside of it and have a name: a service that is away, a result
-- that another execution computes, a row that cannot be read. The query for stuck executions knows it, and it is counted.
ALTER TABLE executions ADD COLUMN waits BIGINT NOT NULL DEFAULT 0;
UPDATE executions SET waits = (SELECT COUNT(*) FROM nodes n WHERE n.execution = executions.number AND n.ended = 0 AND n.waiting IS NOT NULL)
	+ CASE WHEN waiting = '' THEN 0 ELSE 1 END WHERE ended = 0;
CREATE INDEX executions_waits ON executions (number, waits) WHERE ended = 0 AND waits > 0;
