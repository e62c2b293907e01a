-- The health of the services that attempts and executions need, and since when an execution waits.

CREATE TABLE services (
  name {text} NOT NULL PRIMARY KEY CHECK (name <> ''),
  revision BIGINT NOT NULL CHECK (revision > 0),
  away_since BIGINT NOT NULL, -- 0: well
  reason {text} NOT NULL CHECK (reason = '' OR away_since > 0),
  well_at BIGINT NOT NULL,
  probes BIGINT NOT NULL,
  probe_at BIGINT NOT NULL
);

ALTER TABLE executions ADD COLUMN waiting_since BIGINT NOT NULL DEFAULT 0;
