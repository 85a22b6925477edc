-- Up Migration

-- Which processes are alive. Each writes its own row every ten seconds; nothing is decided by it, people look at it. An
-- addition only: the version before goes on working beside it.
CREATE TABLE process (
  id text PRIMARY KEY CONSTRAINT process_id_form CHECK (id ~ '^prc_[0-9a-f]{32}$'),
  host text NOT NULL,
  pid integer NOT NULL,
  version text NOT NULL,
  roles text[] NOT NULL CONSTRAINT process_roles_known CHECK (cardinality(roles) > 0 AND roles <@ ARRAY['web', 'worker']),
  started_at timestamptz NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  -- Its own clock less PostgreSQL's.
  clock_offset_ms integer NOT NULL,
  -- Of a worker: its queue, and how much waits there as far as it knows.
  queue text CONSTRAINT process_queue_known CHECK (queue IN ('memory', 'redis')),
  queue_waiting integer,
  -- What it finds wrong with itself, in sentences.
  troubles text[] NOT NULL DEFAULT '{}',
  CONSTRAINT process_worker_has_queue CHECK (('worker' = ANY (roles)) = (queue IS NOT NULL AND queue_waiting IS NOT NULL))
);

GRANT SELECT, INSERT, UPDATE, DELETE ON process TO halligan_app;

-- Down Migration

DROP TABLE process;
