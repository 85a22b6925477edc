-- Up Migration

-- Telling people, approving from Slack, and logins that are fresh enough. Everything here is an addition: the version
-- before goes on working beside it.

-- Where a person's mail goes. It tells nobody who they are: only (issuer, subject) does.
ALTER TABLE person ADD COLUMN email text;

-- How a login was proven (the provider's acr claim), carried from the browser to the terminal.
ALTER TABLE token ADD COLUMN acr text;
ALTER TABLE login_code ADD COLUMN acr text;

-- Other accounts of one person. A person links them; a login through the identity provider comes first.
CREATE TABLE alias (
  kind text NOT NULL CONSTRAINT alias_kind_known CHECK (kind IN ('slack')),
  -- The Slack workspace (team) and the user in it.
  workspace text NOT NULL,
  account text NOT NULL,
  person_id text NOT NULL REFERENCES person,
  linked_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT alias_is_one_person PRIMARY KEY (kind, workspace, account),
  CONSTRAINT alias_once_per_person UNIQUE (kind, workspace, person_id)
);

-- A code that a person was shown on the web, to be typed where the other account is.
CREATE TABLE link_code (
  code_hash bytea PRIMARY KEY,
  person_id text NOT NULL REFERENCES person,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  CONSTRAINT link_code_lasts_ten_minutes_at_most CHECK (expires_at <= created_at + interval '10 minutes')
);
CREATE INDEX link_code_of_person ON link_code (person_id);

-- What somebody typed before they were sent to prove who they are. Theirs alone, and soon gone.
CREATE TABLE draft (
  handle_hash bytea PRIMARY KEY,
  person_id text NOT NULL REFERENCES person,
  form jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  CONSTRAINT draft_lasts_an_hour_at_most CHECK (expires_at <= created_at + interval '1 hour')
);
CREATE INDEX draft_by_age ON draft (expires_at);

-- What a button of a Slack message or dialog stands for. Slack gets a random value; only its hash is here.
CREATE TABLE slack_handle (
  handle_hash bytea PRIMARY KEY,
  purpose text NOT NULL CONSTRAINT slack_handle_purpose_known CHECK (purpose IN ('decide', 'submit-decision', 'end', 'submit-end', 'submit-request')),
  request_id text REFERENCES request,
  grant_id text REFERENCES access_grant,
  -- Whose dialog it is; null for a button that stands in a message.
  person_id text REFERENCES person,
  -- What the dialog showed.
  seen text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  CONSTRAINT slack_handle_of_a_dialog_is_somebodys CHECK (purpose NOT LIKE 'submit-%' OR person_id IS NOT NULL)
);
CREATE INDEX slack_handle_by_age ON slack_handle (expires_at);
CREATE INDEX slack_handle_of_request ON slack_handle (request_id);

-- Calls from Slack that were accepted, by the hash of their signature, so that none is accepted twice.
CREATE TABLE slack_call (
  signature_hash bytea CONSTRAINT slack_call_once PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX slack_call_by_age ON slack_call (at);

-- Something that people should be told, written in the transaction in which it happened, or ahead of its time.
CREATE TABLE notice (
  id text PRIMARY KEY CONSTRAINT notice_id_form CHECK (id ~ '^ntc_[0-9a-f]{32}$'),
  -- A type of audit event, or grant.ends-soon.
  type text NOT NULL,
  request_id text NOT NULL REFERENCES request,
  grant_id text REFERENCES access_grant,
  lease_id text REFERENCES lease,
  -- Which step of the ladder this is: 0 at once, then the later ones.
  step integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  -- When deliveries were made of it.
  spread_at timestamptz
);
CREATE INDEX notice_due ON notice (due_at) WHERE spread_at IS NULL;
CREATE INDEX notice_of_request ON notice (request_id);

-- One message to one place, and what became of it.
CREATE TABLE delivery (
  id text PRIMARY KEY CONSTRAINT delivery_id_form CHECK (id ~ '^dlv_[0-9a-f]{32}$'),
  notice_id text NOT NULL REFERENCES notice,
  request_id text NOT NULL REFERENCES request,
  channel text NOT NULL CONSTRAINT delivery_channel_known CHECK (channel IN ('slack', 'email', 'webhook')),
  -- card: a message of its own; update: the card is written again; reply: one more line under the card.
  form text NOT NULL CONSTRAINT delivery_form_known CHECK (form IN ('card', 'update', 'reply')),
  -- A Slack channel or user, a mail address, the name of a webhook.
  address text NOT NULL,
  -- Whom it is for, where that is one person.
  person_id text REFERENCES person,
  -- The card that an update or a reply belongs to.
  card_id text REFERENCES delivery,
  state text NOT NULL CONSTRAINT delivery_state_known CHECK (state IN ('waiting', 'sent', 'failed', 'dropped')),
  tries integer NOT NULL DEFAULT 0,
  next_try_at timestamptz,
  -- While it is being sent: nobody else sends it, nor what follows the same card, before this time.
  sending_until timestamptz,
  last_error text,
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  -- What the other side called it: Slack's channel and ts.
  ref jsonb,
  CONSTRAINT delivery_once UNIQUE (notice_id, channel, form, address),
  CONSTRAINT delivery_waiting_has_next_try CHECK ((state = 'waiting') = (next_try_at IS NOT NULL)),
  CONSTRAINT delivery_sent_has_time CHECK (state <> 'sent' OR sent_at IS NOT NULL),
  CONSTRAINT delivery_follows_a_card CHECK ((form = 'card') = (card_id IS NULL))
);
CREATE INDEX delivery_due ON delivery (next_try_at) WHERE state = 'waiting';
CREATE INDEX delivery_of_request ON delivery (request_id);
CREATE INDEX delivery_of_card ON delivery (card_id) WHERE card_id IS NOT NULL;

GRANT SELECT, INSERT, DELETE ON alias, link_code, draft, slack_call TO halligan_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON slack_handle TO halligan_app;
GRANT SELECT, INSERT, UPDATE ON notice, delivery TO halligan_app;

-- Down Migration

DROP TABLE delivery, notice, slack_call, slack_handle, draft, link_code, alias;
ALTER TABLE login_code DROP COLUMN acr;
ALTER TABLE token DROP COLUMN acr;
ALTER TABLE person DROP COLUMN email;
