-- Up Migration

-- Names of constraints are the names of the rules they hold; the code looks at them when the database says no.
--
--   request  pending → approved | denied* | withdrawn* | lapsed*
--   grant    scheduled → active → ending → ended* ;  scheduled → cancelled*
--   lease    issuing → live → revoking → revoked* ;  issuing → void*
--   review   due → closed*                                             (* is final)

DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'halligan_app') THEN CREATE ROLE halligan_app NOLOGIN; END IF;
END $$;

CREATE TABLE person (
  id text PRIMARY KEY CONSTRAINT person_id_form CHECK (id ~ '^per_[0-9a-f]{32}$'),
  issuer text NOT NULL,
  subject text NOT NULL,
  name text NOT NULL,
  groups text[] NOT NULL,
  groups_read_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT person_is_issuer_and_subject UNIQUE (issuer, subject)
);

-- Logins. Only hashes of what a browser or a terminal holds are kept.
CREATE TABLE session (
  id_hash bytea PRIMARY KEY,
  id text NOT NULL UNIQUE,
  person_id text REFERENCES person,
  data jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX session_of_person ON session (person_id);
CREATE INDEX session_by_age ON session (seen_at);

CREATE TABLE token (
  id text PRIMARY KEY,
  secret_hash bytea NOT NULL UNIQUE,
  person_id text NOT NULL REFERENCES person,
  via text NOT NULL CONSTRAINT token_via_known CHECK (via IN ('cli', 'device')),
  label text NOT NULL,
  auth_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz,
  expires_at timestamptz NOT NULL,
  CONSTRAINT token_lasts_twelve_hours_at_most CHECK (expires_at <= created_at + interval '12 hours')
);
CREATE INDEX token_of_person ON token (person_id);

CREATE TABLE login_code (
  code_hash bytea PRIMARY KEY,
  user_code_hash bytea UNIQUE,
  kind text NOT NULL CONSTRAINT login_code_kind_known CHECK (kind IN ('cli', 'device')),
  person_id text REFERENCES person,
  challenge text,
  redirect_uri text,
  label text NOT NULL,
  auth_at timestamptz,
  polled_at timestamptz,
  denied boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);
CREATE INDEX login_code_by_age ON login_code (expires_at);

-- What people ask for, and what others say.
CREATE TABLE request (
  id text PRIMARY KEY CONSTRAINT request_id_form CHECK (id ~ '^req_[0-9a-f]{32}$'),
  person_id text NOT NULL REFERENCES person,
  state text NOT NULL CONSTRAINT request_state_known CHECK (state IN ('pending', 'approved', 'denied', 'withdrawn', 'lapsed')),
  epoch integer NOT NULL DEFAULT 0,
  entitlements text[] NOT NULL CONSTRAINT request_names_one_to_eight CHECK (cardinality(entitlements) BETWEEN 1 AND 8),
  duration_seconds integer NOT NULL CONSTRAINT request_duration_positive CHECK (duration_seconds > 0),
  reason text NOT NULL CONSTRAINT request_has_reason CHECK (btrim(reason) <> ''),
  incident text,
  start_at timestamptz,
  break_glass boolean NOT NULL,
  -- The entitlements' policies as they were when asked, and what each opened at its target, with one hash over both.
  policy jsonb NOT NULL,
  policy_hash text NOT NULL,
  -- Everyone whom some rule of the policy counts, so that lists can be read by index.
  approver_groups text[] NOT NULL,
  approver_subjects text[] NOT NULL,
  reviewer_groups text[] NOT NULL,
  reviewer_subjects text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  lapses_at timestamptz NOT NULL,
  decided_at timestamptz,
  CONSTRAINT request_and_requester UNIQUE (id, person_id),
  CONSTRAINT request_decided_when_final CHECK ((state = 'pending') = (decided_at IS NULL))
);
CREATE INDEX request_pending ON request (lapses_at) WHERE state = 'pending';
CREATE INDEX request_of_person ON request (person_id, id);

CREATE TABLE decision (
  id text PRIMARY KEY,
  request_id text NOT NULL,
  requester_id text NOT NULL,
  person_id text NOT NULL REFERENCES person,
  decision text NOT NULL CONSTRAINT decision_known CHECK (decision IN ('approve', 'deny')),
  reason text NOT NULL,
  seen text NOT NULL,
  via text NOT NULL,
  decided_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT decision_is_of_the_request FOREIGN KEY (request_id, requester_id) REFERENCES request (id, person_id),
  CONSTRAINT decision_never_by_requester CHECK (person_id <> requester_id),
  CONSTRAINT decision_once_per_person UNIQUE (request_id, person_id)
);

-- "grant" is a reserved word of SQL, so the table says whose grant it is.
CREATE TABLE access_grant (
  id text PRIMARY KEY CONSTRAINT grant_id_form CHECK (id ~ '^gnt_[0-9a-f]{32}$'),
  request_id text NOT NULL CONSTRAINT grant_once_per_request UNIQUE,
  person_id text NOT NULL,
  state text NOT NULL CONSTRAINT grant_state_known CHECK (state IN ('scheduled', 'active', 'ending', 'ended', 'cancelled')),
  epoch integer NOT NULL DEFAULT 0,
  break_glass boolean NOT NULL,
  incident text,
  starts_at timestamptz NOT NULL,
  ends_at timestamptz NOT NULL,
  end_reason text CONSTRAINT grant_end_reason_known CHECK (end_reason IN ('expired', 'returned', 'revoked', 'offboarded', 'incident-closed')),
  end_note text,
  ending_at timestamptz,
  ended_at timestamptz,
  CONSTRAINT grant_is_of_the_requester FOREIGN KEY (request_id, person_id) REFERENCES request (id, person_id),
  CONSTRAINT grant_ends_after_it_starts CHECK (ends_at > starts_at),
  CONSTRAINT grant_ending_has_reason CHECK ((state IN ('ending', 'ended', 'cancelled')) = (end_reason IS NOT NULL)),
  CONSTRAINT grant_ended_has_time CHECK ((state IN ('ended', 'cancelled')) = (ended_at IS NOT NULL))
);
CREATE INDEX grant_due ON access_grant (ends_at) WHERE state IN ('scheduled', 'active');
CREATE INDEX grant_to_start ON access_grant (starts_at) WHERE state = 'scheduled';
CREATE INDEX grant_ending ON access_grant (ending_at) WHERE state = 'ending';
CREATE INDEX grant_of_person ON access_grant (person_id, id);
CREATE INDEX grant_of_incident ON access_grant (incident) WHERE incident IS NOT NULL;

CREATE TABLE lease (
  id text PRIMARY KEY CONSTRAINT lease_id_form CHECK (id ~ '^lse_[0-9a-f]{32}$'),
  grant_id text NOT NULL REFERENCES access_grant,
  entitlement text NOT NULL,
  target text NOT NULL,
  kind text NOT NULL,
  state text NOT NULL CONSTRAINT lease_state_known CHECK (state IN ('issuing', 'live', 'revoking', 'revoked', 'void')),
  epoch integer NOT NULL DEFAULT 0,
  external_name text NOT NULL CONSTRAINT lease_external_name_unique UNIQUE,
  -- What it was made with at its target, so that it can be ended there whatever the config says by then.
  target_grant jsonb NOT NULL,
  -- Its target lets a new one live beside it until it ends by itself.
  may_overlap boolean NOT NULL DEFAULT false,
  handle text,
  expires_at timestamptz NOT NULL,
  end_reason text,
  created_at timestamptz NOT NULL DEFAULT now(),
  revealed_at timestamptz,
  revoking_at timestamptz,
  cut_at timestamptz,
  read_back_at timestamptz,
  tries integer NOT NULL DEFAULT 0,
  next_try_at timestamptz,
  last_error text,
  CONSTRAINT lease_live_was_revealed CHECK (state NOT IN ('live') OR (revealed_at IS NOT NULL AND handle IS NOT NULL)),
  CONSTRAINT lease_gone_is_read_back CHECK ((state IN ('revoked', 'void')) = (read_back_at IS NOT NULL)),
  CONSTRAINT lease_revoking_has_next_try CHECK ((state = 'revoking') = (next_try_at IS NOT NULL)),
  CONSTRAINT lease_end_has_reason CHECK ((state IN ('revoking', 'revoked', 'void')) = (end_reason IS NOT NULL))
);
CREATE UNIQUE INDEX lease_one_live_per_entitlement ON lease (grant_id, entitlement) WHERE state IN ('issuing', 'live') AND NOT may_overlap;
CREATE INDEX lease_of_grant ON lease (grant_id);
CREATE INDEX lease_over ON lease (expires_at) WHERE state = 'live' AND may_overlap;
CREATE INDEX lease_to_revoke ON lease (next_try_at) WHERE state = 'revoking';
CREATE INDEX lease_issuing ON lease (created_at) WHERE state = 'issuing';
CREATE INDEX lease_open_at_target ON lease (target) WHERE state IN ('issuing', 'live', 'revoking');

CREATE FUNCTION grant_ended_only_when_leases_are_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM lease WHERE grant_id = NEW.id AND state NOT IN ('revoked', 'void')) THEN
    RAISE EXCEPTION 'grant % still has leases that are not gone', NEW.id USING ERRCODE = 'check_violation', CONSTRAINT = 'grant_ended_only_when_leases_are_gone';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER grant_ended_only_when_leases_are_gone BEFORE UPDATE OF state ON access_grant
  FOR EACH ROW WHEN (NEW.state IN ('ended', 'cancelled')) EXECUTE FUNCTION grant_ended_only_when_leases_are_gone();

CREATE TABLE review (
  id text PRIMARY KEY CONSTRAINT review_id_form CHECK (id ~ '^rev_[0-9a-f]{32}$'),
  grant_id text NOT NULL CONSTRAINT review_once_per_grant UNIQUE REFERENCES access_grant,
  person_id text NOT NULL REFERENCES person,
  state text NOT NULL CONSTRAINT review_state_known CHECK (state IN ('due', 'closed')),
  epoch integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  closed_by text REFERENCES person,
  closed_at timestamptz,
  verdict text CONSTRAINT review_verdict_known CHECK (verdict IN ('justified', 'drill', 'follow-up', 'misuse')),
  notes text,
  CONSTRAINT review_never_by_holder CHECK (closed_by <> person_id),
  CONSTRAINT review_closed_is_whole CHECK ((state = 'closed') = (closed_by IS NOT NULL AND closed_at IS NOT NULL AND verdict IS NOT NULL))
);
CREATE INDEX review_due ON review (due_at) WHERE state = 'due';
CREATE INDEX review_due_of_person ON review (person_id) WHERE state = 'due';

CREATE TABLE idempotency (
  person_id text NOT NULL REFERENCES person,
  key text NOT NULL,
  body_hash text NOT NULL,
  object_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT idempotency_key_once PRIMARY KEY (person_id, key)
);

-- What must still happen outside, written in the transaction that made it necessary.
CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text NOT NULL,
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The witness. `line` is the exact leaf of the log: RFC 8785 JSON. The other columns only help finding it.
CREATE TABLE audit_event (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text NOT NULL CONSTRAINT audit_event_id_unique UNIQUE CONSTRAINT audit_event_id_form CHECK (id ~ '^evt_[0-9a-f]{32}$'),
  at timestamptz NOT NULL,
  type text NOT NULL CONSTRAINT audit_event_type_form CHECK (type ~ '^[a-z-]+\.[a-z-]+$'),
  actor_id text,
  person_id text,
  request_id text,
  grant_id text,
  lease_id text,
  incident text,
  entitlements text[] NOT NULL,
  line text NOT NULL CONSTRAINT audit_event_line_is_one_line CHECK (strpos(line, E'\n') = 0 AND strpos(line, E'\r') = 0)
);
-- Time is looked up by block range: rows stand nearly in its order, and a full index would cost every write.
CREATE INDEX audit_event_by_time ON audit_event USING brin (at);
CREATE INDEX audit_event_of_request ON audit_event (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_event_of_grant ON audit_event (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX audit_event_of_person ON audit_event (person_id) WHERE person_id IS NOT NULL;

-- Events without an index yet. The sequencer empties it. Neither this table nor the leaves refer to the event by a foreign
-- key: checking one locks, and so writes, the event's own row. That an event is missing is for the log's verifier to find.
CREATE TABLE audit_pending (
  position bigint PRIMARY KEY
);
CREATE FUNCTION audit_event_is_pending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_pending SELECT position FROM new_events;
  RETURN NULL;
END $$;
CREATE TRIGGER audit_event_is_pending AFTER INSERT ON audit_event
  REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION audit_event_is_pending();

-- The tree (RFC 6962 §2.1). A node row holds the hash of a whole subtree of 2^level leaves; level 0 is the leaf itself.
-- Only levels 0, 8, 16 and 24 are kept: the others are computed from at most 256 of these.
CREATE TABLE audit_leaf (
  index bigint PRIMARY KEY CONSTRAINT audit_leaf_index_not_negative CHECK (index >= 0),
  event_id text NOT NULL CONSTRAINT audit_leaf_once_per_event UNIQUE,
  hash bytea NOT NULL
);
CREATE TABLE audit_node (
  level smallint NOT NULL CONSTRAINT audit_node_level_kept CHECK (level IN (8, 16, 24)),
  index bigint NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (level, index)
);
-- Checkpoints as signed and as published outside. `note` is the whole C2SP signed note.
CREATE TABLE audit_checkpoint (
  size bigint PRIMARY KEY CONSTRAINT audit_checkpoint_not_empty CHECK (size > 0),
  root bytea NOT NULL,
  note text NOT NULL,
  signed_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT, UPDATE ON person, request, access_grant, lease, review TO halligan_app;
GRANT SELECT, INSERT ON decision TO halligan_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON session, token, login_code TO halligan_app;
GRANT SELECT, INSERT, DELETE ON idempotency TO halligan_app;
-- UPDATE only because locking a row asks for it.
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO halligan_app;
GRANT SELECT, INSERT ON audit_event, audit_leaf, audit_node, audit_checkpoint TO halligan_app;
GRANT SELECT, INSERT, DELETE ON audit_pending TO halligan_app;

-- Down Migration

DROP TABLE audit_checkpoint, audit_node, audit_leaf, audit_pending, audit_event, outbox, idempotency, review, lease, access_grant, decision, request, login_code, token, session, person;
DROP FUNCTION grant_ended_only_when_leases_are_gone, audit_event_is_pending;
