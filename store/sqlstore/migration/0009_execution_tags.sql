-- Labels and tags of executions, which lists are narrowed by: an execution without them has no row here.
CREATE TABLE execution_tags (
  key {text} NOT NULL,
  value {text} NOT NULL, -- empty for a tag, which is a key alone
  execution BIGINT NOT NULL REFERENCES executions (number),
  PRIMARY KEY (key, value, execution)
) {clustered};
