-- What users say of a name, whatever its versions: there is a row only for those of which something was said.
CREATE TABLE named_entities (
  kind BIGINT NOT NULL CHECK (kind IN (1, 2, 3)), -- flyteidl.core.ResourceType
  project {text} NOT NULL,
  domain {text} NOT NULL,
  name {text} NOT NULL,
  description {text} NOT NULL,
  state BIGINT NOT NULL CHECK (state IN (0, 1, 2)), -- flyteidl.admin.NamedEntityState
  PRIMARY KEY (kind, project, domain, name)
) {clustered};
