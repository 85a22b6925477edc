-- Up Migration

-- Which server and which database this is, so that a copy is noticed. One row, written by the first process that starts.
-- An addition only: the version before goes on working beside it, and knows nothing of quarantine.
CREATE TABLE store (
  one boolean PRIMARY KEY DEFAULT true CONSTRAINT store_is_one CHECK (one),
  -- The server's system identifier and the database's own number on it.
  identity text NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now()
);

-- After a restore: nothing is opened until an admin lifts it. One at a time; the lifted ones are kept.
CREATE TABLE quarantine (
  id text PRIMARY KEY CONSTRAINT quarantine_id_form CHECK (id ~ '^qrn_[0-9a-f]{32}$'),
  causes text[] NOT NULL CONSTRAINT quarantine_causes_known CHECK (cardinality(causes) > 0 AND causes <@ ARRAY['log-ahead', 'store-moved']),
  -- Entries under the newest checkpoint in the database, and under the newest one that was published.
  database_size bigint NOT NULL,
  published_size bigint NOT NULL,
  began_at timestamptz NOT NULL DEFAULT now(),
  -- What targets hold and what rows say, where these differ, as a worker last read it. Nothing is decided by it.
  differences jsonb,
  compared_at timestamptz,
  lifted_at timestamptz,
  lifted_by text REFERENCES person,
  reason text,
  CONSTRAINT quarantine_lifted_is_whole CHECK ((lifted_at IS NULL) = (lifted_by IS NULL) AND (lifted_at IS NULL) = (reason IS NULL)),
  CONSTRAINT quarantine_compared_has_time CHECK ((differences IS NULL) = (compared_at IS NULL))
);
CREATE UNIQUE INDEX quarantine_one_at_a_time ON quarantine ((lifted_at IS NULL)) WHERE lifted_at IS NULL;

GRANT SELECT, INSERT, UPDATE ON store, quarantine TO halligan_app;

-- Down Migration

DROP TABLE quarantine, store;
