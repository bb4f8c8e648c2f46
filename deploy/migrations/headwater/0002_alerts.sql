-- What the processors that work on PostgreSQL keep, and what alerts are made of.

-- The revision names a rule's content: alerts carry it, and so does the rule's ETag. An update that changes nothing keeps it.
CREATE FUNCTION headwater.revise_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id THEN
    RAISE EXCEPTION 'the id and the user_id of an alert rule cannot change'
      USING ERRCODE = 'check_violation', HINT = 'delete the rule and create another one';
  END IF;
  IF to_jsonb(NEW) - '{revision,created_at,updated_at}'::text[] = to_jsonb(OLD) - '{revision,created_at,updated_at}'::text[] THEN
    NEW.revision := greatest(NEW.revision, OLD.revision);
  ELSE
    NEW.revision := greatest(NEW.revision, OLD.revision + 1);
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER alert_rules_revise BEFORE UPDATE ON headwater.alert_rules FOR EACH ROW EXECUTE FUNCTION headwater.revise_rule();

-- An edit must reach the log as a whole rule, also when Postgres would not resend a long condition.
ALTER TABLE headwater.alert_rules REPLICA IDENTITY FULL;

COMMENT ON COLUMN headwater.alert_rules.revision IS 'Grows by one with each change of anything but revision, created_at and updated_at; also by SQL';
COMMENT ON COLUMN headwater.alert_rules.channels IS 'Where it notifies. Addresses and secrets: this column is never captured';

-- The event stays as it stands in the log, byte for byte; jsonb would refuse some JSON that is in the database's own columns.
ALTER TABLE headwater.alert_history ALTER COLUMN event TYPE json USING event::json;
CREATE INDEX alert_history_firing ON headwater.alert_history (rule_id) WHERE state = 'firing';

-- Written at each commit of each processor: room on the page keeps these updates where they are.
CREATE TABLE headwater.processor_offsets (
  processor text PRIMARY KEY,
  seq bigint CHECK (seq >= 0),
  epoch text,
  head jsonb,
  owner text,
  leased_until timestamptz,
  CHECK ((seq IS NULL) = (epoch IS NULL)),
  CHECK ((owner IS NULL) = (leased_until IS NULL))
) WITH (fillfactor = 20);
COMMENT ON TABLE headwater.processor_offsets IS 'How far each processor has folded the log into this database, and which instance works. Never captured.';
COMMENT ON COLUMN headwater.processor_offsets.seq IS 'Last sequence of the log whose effects are stored; NULL: none yet';
COMMENT ON COLUMN headwater.processor_offsets.head IS 'What the processor keeps beside its offset and changes with each commit: the log time of alerts, say';
COMMENT ON COLUMN headwater.processor_offsets.owner IS 'The instance that works until leased_until, by the clock of this server';

-- What the engine of alerts knows as of its offset. "processor" is a namespace: a second fold can stand beside the live one.
-- Each record is the JSON that the engine gave; beside it stands only what is asked for.
CREATE TABLE headwater.alert_state_tables (
  processor text NOT NULL,
  table_name text NOT NULL,
  record json NOT NULL,
  PRIMARY KEY (processor, table_name)
);
COMMENT ON TABLE headwater.alert_state_tables IS 'The columns of each table, as the log told them.';

CREATE TABLE headwater.alert_state_rules (
  processor text NOT NULL,
  id uuid NOT NULL,
  record json NOT NULL,
  PRIMARY KEY (processor, id)
);
COMMENT ON TABLE headwater.alert_state_rules IS 'Rules as the log has them up to the offset, and the sequence at which each took effect.';

CREATE TABLE headwater.alert_state_episodes (
  processor text NOT NULL,
  rule uuid NOT NULL,
  entity text NOT NULL,
  phase text NOT NULL,
  record json NOT NULL,
  PRIMARY KEY (processor, rule, entity)
) WITH (fillfactor = 80);
COMMENT ON TABLE headwater.alert_state_episodes IS 'What is pending or firing, by rule and entity.';

CREATE TABLE headwater.alert_state_entities (
  processor text NOT NULL,
  table_name text NOT NULL,
  grouping_name text NOT NULL,
  entity text NOT NULL,
  record json NOT NULL,
  PRIMARY KEY (processor, table_name, grouping_name, entity)
) WITH (fillfactor = 80);
COMMENT ON TABLE headwater.alert_state_entities IS 'Last values of the entities that rules look at.';
COMMENT ON COLUMN headwater.alert_state_entities.grouping_name IS 'Empty: an entity is a row, named by its primary key';

-- One row a commit instead of one an entity: a busy table's entities would be written over and over.
CREATE TABLE headwater.alert_state_journal (
  processor text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  table_names text[] NOT NULL,
  grouping_names text[] NOT NULL,
  entities text[] NOT NULL,
  records text[] NOT NULL,
  PRIMARY KEY (processor, id)
);
COMMENT ON TABLE headwater.alert_state_journal IS 'Records of entities that are not in alert_state_entities yet, the last of each counts; NULL: deleted.';

CREATE TABLE headwater.alert_state_samples (
  processor text NOT NULL,
  table_name text NOT NULL,
  grouping_name text NOT NULL,
  entity text NOT NULL,
  field text NOT NULL,
  look_back bigint NOT NULL,
  seq bigint NOT NULL,
  at bigint NOT NULL,
  value json NOT NULL,
  PRIMARY KEY (processor, table_name, grouping_name, entity, field, look_back, seq)
);
COMMENT ON TABLE headwater.alert_state_samples IS 'Values that a percentage change may look back at; at and look_back in microseconds of log time.';

-- One row for each transition of an alert, in the transaction that makes it, until its notifications are planned.
CREATE TABLE headwater.alert_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  alert_id uuid NOT NULL,
  transition text NOT NULL CHECK (transition IN ('firing', 'resolved')),
  rule_id uuid NOT NULL,
  revision integer NOT NULL,
  user_id text NOT NULL,
  alert jsonb NOT NULL,
  rule jsonb NOT NULL,
  event json NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (alert_id, transition)
);
COMMENT ON TABLE headwater.alert_outbox IS 'Transitions whose notifications are not planned yet, by id in the order of the log. Never captured.';
COMMENT ON COLUMN headwater.alert_outbox.alert IS 'The columns of alert_history as of this transition, except event; times in ISO 8601 with microseconds';
COMMENT ON COLUMN headwater.alert_outbox.rule IS '{name, table, condition, clear, severity} as of this transition; condition and clear as JSON';
COMMENT ON COLUMN headwater.alert_outbox.event IS 'The event at which it happened, as it stands in the log';
