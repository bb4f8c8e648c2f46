-- Users, owners and rule authors are named by ids of the application's own (text): there are no foreign keys to
-- "users", which only holds what Headwater needs to reach a person.

CREATE FUNCTION headwater.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

CREATE TABLE headwater.api_keys (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL CHECK (name <> ''),
  owner text NOT NULL CHECK (owner <> ''),
  hash text NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
  scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL),
  limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
COMMENT ON TABLE headwater.api_keys IS 'API keys. Only the SHA-256 of a key is kept.';
COMMENT ON COLUMN headwater.api_keys.hash IS 'SHA-256 of the key as 64 lower-case hex digits';
CREATE INDEX api_keys_owner ON headwater.api_keys (owner);

CREATE TABLE headwater.users (
  id text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (id <> ''),
  email text,
  name text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON headwater.users (lower(email));
CREATE TRIGGER users_touch BEFORE UPDATE ON headwater.users FOR EACH ROW EXECUTE FUNCTION headwater.touch();

CREATE TABLE headwater.user_devices (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id text NOT NULL CHECK (user_id <> ''),
  endpoint text NOT NULL UNIQUE CHECK (endpoint ~ '^https?://'),
  p256dh text NOT NULL,
  auth text NOT NULL,
  label text,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz
);
COMMENT ON TABLE headwater.user_devices IS 'Web Push subscriptions: endpoint and keys as the browser gave them (RFC 8030, RFC 8291).';
CREATE INDEX user_devices_user ON headwater.user_devices (user_id);

CREATE TABLE headwater.alert_rules (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id text NOT NULL CHECK (user_id <> ''),
  revision integer NOT NULL DEFAULT 1 CHECK (revision > 0),
  name text NOT NULL CHECK (name <> ''),
  table_name text NOT NULL CHECK (table_name LIKE '%.%' AND table_name NOT LIKE 'headwater.%'),
  match jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(match) = 'object'),
  group_by text[],
  condition jsonb NOT NULL CHECK (jsonb_typeof(condition) = 'object'),
  clear_condition jsonb CHECK (jsonb_typeof(clear_condition) = 'object'),
  for_seconds integer NOT NULL DEFAULT 0 CHECK (for_seconds >= 0),
  keep_firing_for_seconds integer NOT NULL DEFAULT 0 CHECK (keep_firing_for_seconds >= 0),
  cooldown_seconds integer NOT NULL DEFAULT 0 CHECK (cooldown_seconds >= 0),
  severity text NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'critical')),
  channels jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(channels) = 'array'),
  enabled boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN headwater.alert_rules.group_by IS 'Columns that make an entity; NULL: the primary key of the table';
CREATE INDEX alert_rules_user ON headwater.alert_rules (user_id, created_at);
CREATE TRIGGER alert_rules_touch BEFORE UPDATE ON headwater.alert_rules FOR EACH ROW EXECUTE FUNCTION headwater.touch();

-- History outlives the rule it came from, so rule_id is no foreign key.
CREATE TABLE headwater.alert_history (
  id uuid PRIMARY KEY,
  rule_id uuid NOT NULL,
  revision integer NOT NULL,
  user_id text NOT NULL,
  entity jsonb NOT NULL,
  severity text NOT NULL,
  state text NOT NULL CHECK (state IN ('firing', 'resolved')),
  value text,
  fired_at timestamptz NOT NULL,
  fired_seq bigint NOT NULL CHECK (fired_seq > 0),
  resolved_at timestamptz,
  resolved_seq bigint CHECK (resolved_seq >= fired_seq),
  reason text,
  event jsonb,
  CHECK ((state = 'resolved') = (resolved_at IS NOT NULL)),
  CHECK ((resolved_at IS NULL) = (resolved_seq IS NULL))
);
COMMENT ON COLUMN headwater.alert_history.fired_at IS 'Log time, as are all times in this table';
CREATE INDEX alert_history_user ON headwater.alert_history (user_id, fired_at DESC, id);
CREATE INDEX alert_history_rule ON headwater.alert_history (rule_id, fired_at DESC);

CREATE TABLE headwater.notification_logs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id text NOT NULL,
  alert_id uuid NOT NULL,
  rule_id uuid NOT NULL,
  user_id text NOT NULL,
  transition text NOT NULL CHECK (transition IN ('firing', 'resolved')),
  channel text NOT NULL CHECK (channel IN ('webhook', 'email', 'push')),
  target text NOT NULL,
  attempt integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
  status text NOT NULL,
  status_code integer,
  latency_ms integer,
  answer text,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (job_id, attempt)
);
COMMENT ON TABLE headwater.notification_logs IS 'One row for each attempt to deliver a notification.';
CREATE INDEX notification_logs_alert ON headwater.notification_logs (alert_id, id);
CREATE INDEX notification_logs_user ON headwater.notification_logs (user_id, created_at DESC);

CREATE TABLE headwater.silences (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id text NOT NULL CHECK (user_id <> ''),
  rule_id uuid,
  match jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(match) = 'object'),
  comment text,
  starts_at timestamptz NOT NULL DEFAULT now(),
  ends_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (ends_at > starts_at)
);
COMMENT ON COLUMN headwater.silences.rule_id IS 'NULL: every rule of the user';
CREATE INDEX silences_user ON headwater.silences (user_id, ends_at);
CREATE TRIGGER silences_touch BEFORE UPDATE ON headwater.silences FOR EACH ROW EXECUTE FUNCTION headwater.touch();
