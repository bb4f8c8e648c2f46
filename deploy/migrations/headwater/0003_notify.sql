-- Notifications: what is to be delivered, to whom, and how far it has come. All of it is kept here; Redis only makes it fast.

-- One row for each (alert, transition, channel, target), also for what is not sent, with the reason. A digest is a row of its own.
CREATE TABLE headwater.notification_jobs (
  job_id text PRIMARY KEY CHECK (job_id ~ '^[A-Za-z0-9_-]{8,200}$'),
  transition text NOT NULL CHECK (transition IN ('firing', 'resolved', 'digest')),
  alert_id uuid,
  rule_id uuid,
  user_id text NOT NULL,
  entity_key text,
  at timestamptz NOT NULL,
  channel text NOT NULL CHECK (channel IN ('webhook', 'email', 'push', 'none')),
  target_key text NOT NULL,
  target jsonb NOT NULL,
  endpoint text NOT NULL,
  notice json,
  state text NOT NULL CHECK (state IN ('collecting', 'queued', 'delivering', 'delivered', 'dead', 'suppressed')),
  reason text,
  digest_id text,
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  planned_at timestamptz NOT NULL DEFAULT now(),
  first_at timestamptz NOT NULL DEFAULT now(),
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  leased_until timestamptz,
  delivered_at timestamptz,
  last_status integer,
  CHECK ((transition = 'digest') = (alert_id IS NULL)),
  CHECK ((alert_id IS NULL) = (rule_id IS NULL)),
  CHECK ((state = 'delivering') = (leased_until IS NOT NULL)),
  CHECK ((state = 'delivered') = (delivered_at IS NOT NULL)),
  CHECK (state IN ('collecting', 'suppressed') OR notice IS NOT NULL)
) WITH (fillfactor = 70);
COMMENT ON TABLE headwater.notification_jobs IS 'Notifications, planned once and delivered at least once under the same id. Never captured.';
COMMENT ON COLUMN headwater.notification_jobs.job_id IS 'Made of alert, transition, channel and target; what the receiver sees as the id of the notification';
COMMENT ON COLUMN headwater.notification_jobs.at IS 'Log time of the transition; of a digest, the beginning of its minute';
COMMENT ON COLUMN headwater.notification_jobs.target IS 'Address: {url}, {to} or {deviceId}. Secrets stay with the rule or the device and are read at each attempt';
COMMENT ON COLUMN headwater.notification_jobs.endpoint IS 'What fails together: the origin of a URL, the mail server';
COMMENT ON COLUMN headwater.notification_jobs.state IS 'collecting: a digest whose minute is not over; suppressed: never sent by itself, see reason and digest_id; dead: given up, see reason, can be sent again';
COMMENT ON COLUMN headwater.notification_jobs.reason IS
  'suppressed: silenced, cooldown, throttled, digested, disabled, no_channels, rule_gone, no_devices, not_configured, withdrawn; dead: failed, gone, expired; queued: firing_first (waits until the firing is told of), retry_after (the receiver said when)';
COMMENT ON COLUMN headwater.notification_jobs.first_at IS 'From here on attempts are made for a day; begins again when it is sent again';

CREATE INDEX notification_jobs_due ON headwater.notification_jobs (endpoint, next_attempt_at, job_id) WHERE state = 'queued';
CREATE INDEX notification_jobs_leased ON headwater.notification_jobs (leased_until) WHERE state = 'delivering';
CREATE INDEX notification_jobs_collecting ON headwater.notification_jobs (next_attempt_at) WHERE state = 'collecting';
CREATE INDEX notification_jobs_dead ON headwater.notification_jobs (first_at) WHERE state = 'dead';
CREATE INDEX notification_jobs_digest ON headwater.notification_jobs (digest_id) WHERE digest_id IS NOT NULL;
CREATE INDEX notification_jobs_alert ON headwater.notification_jobs (alert_id);
CREATE INDEX notification_jobs_waiting ON headwater.notification_jobs (alert_id) WHERE state = 'queued' AND reason = 'firing_first';
CREATE INDEX notification_jobs_finished ON headwater.notification_jobs (planned_at, job_id) WHERE state IN ('delivered', 'dead', 'suppressed');
-- These two leave out what a storm or a cooldown has kept back: there may be any number of them, and nobody asks.
CREATE INDEX notification_jobs_user ON headwater.notification_jobs (user_id, planned_at) WHERE state <> 'suppressed' AND transition <> 'digest';
CREATE INDEX notification_jobs_fired ON headwater.notification_jobs (rule_id, entity_key, at)
  WHERE transition = 'firing' AND (state <> 'suppressed' OR digest_id IS NOT NULL);

-- Breakers: an endpoint that keeps failing is left alone until open_until, then asked by one attempt at a time.
CREATE TABLE headwater.notification_endpoints (
  endpoint text PRIMARY KEY,
  failures integer NOT NULL CHECK (failures >= 0),
  open_until timestamptz,
  failing_since timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE headwater.notification_endpoints IS 'Endpoints that have failed: how often in a row, and until when they are left alone. Never captured.';

-- Targets that said that they are gone (410). A later change of the rule lets them be tried again.
CREATE TABLE headwater.notification_targets (
  user_id text NOT NULL,
  target_key text NOT NULL,
  disabled_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, target_key)
);
COMMENT ON TABLE headwater.notification_targets IS 'Targets of a user that are gone. Never captured.';

-- A digest tells of many alerts.
ALTER TABLE headwater.notification_logs
  ALTER COLUMN alert_id DROP NOT NULL,
  ALTER COLUMN rule_id DROP NOT NULL,
  DROP CONSTRAINT notification_logs_transition_check,
  ADD CONSTRAINT notification_logs_transition_check CHECK (transition IN ('firing', 'resolved', 'digest'));
COMMENT ON COLUMN headwater.notification_logs.status IS 'delivered, retry, failed, gone; unknown: the process ended before the outcome was known';
