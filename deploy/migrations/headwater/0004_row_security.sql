-- Whoever asks over HTTP gets at rows through the role headwater_api alone, and there at his own only: the policies hold even
-- where a statement forgets its WHERE. The owner of the tables (capture and the processors) is not bound by them.

CREATE POLICY own_rows ON headwater.alert_rules USING (user_id = current_setting('headwater.user_id', true));
CREATE POLICY own_rows ON headwater.alert_history USING (user_id = current_setting('headwater.user_id', true));
CREATE POLICY own_rows ON headwater.silences USING (user_id = current_setting('headwater.user_id', true));
CREATE POLICY own_rows ON headwater.user_devices USING (user_id = current_setting('headwater.user_id', true));
CREATE POLICY own_rows ON headwater.notification_jobs USING (user_id = current_setting('headwater.user_id', true));
CREATE POLICY own_rows ON headwater.notification_logs USING (user_id = current_setting('headwater.user_id', true));

ALTER TABLE headwater.alert_rules ENABLE ROW LEVEL SECURITY;
ALTER TABLE headwater.alert_history ENABLE ROW LEVEL SECURITY;
ALTER TABLE headwater.silences ENABLE ROW LEVEL SECURITY;
ALTER TABLE headwater.user_devices ENABLE ROW LEVEL SECURITY;
ALTER TABLE headwater.notification_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE headwater.notification_logs ENABLE ROW LEVEL SECURITY;

-- A browser that another user signs in with gives the same endpoint and keys: who has the keys has the browser.
CREATE FUNCTION headwater.release_device(endpoint text, p256dh text, auth text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM headwater.user_devices d
   WHERE d.endpoint = $1 AND d.p256dh = $2 AND d.auth = $3 AND d.user_id <> current_setting('headwater.user_id', true)
$$;
REVOKE ALL ON FUNCTION headwater.release_device(text, text, text) FROM PUBLIC;

-- Roles belong to the cluster, not to this database, and a dump has none: so this is asked at each migration, not done once.
CREATE FUNCTION headwater.ensure_api_role() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  settable CONSTANT text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
  membership CONSTANT text := format('GRANT headwater_api TO %I;', current_user);
  usage CONSTANT text := 'GRANT USAGE ON SCHEMA headwater TO headwater_api;';
  missing text[] := '{}';
BEGIN
  IF to_regrole('headwater_api') IS NULL THEN
    BEGIN
      CREATE ROLE headwater_api NOLOGIN;
    EXCEPTION
      -- Another database of this cluster was faster.
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        missing := ARRAY['CREATE ROLE headwater_api NOLOGIN;', membership];
        IF NOT pg_has_role(current_user, (SELECT nspowner FROM pg_namespace WHERE nspname = 'headwater'), 'USAGE') THEN
          missing := missing || usage;
        END IF;
        RETURN array_to_string(missing, ' ');
    END;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_api' AND (rolsuper OR rolbypassrls)) THEN
    missing := missing || 'ALTER ROLE headwater_api NOSUPERUSER NOBYPASSRLS;'::text;
  END IF;
  IF NOT pg_has_role(current_user, 'headwater_api', settable) THEN
    BEGIN
      EXECUTE membership;
    EXCEPTION
      WHEN unique_violation THEN NULL;
      WHEN insufficient_privilege THEN missing := missing || membership;
    END;
  END IF;
  -- The last of the grants stands for all of them.
  IF has_function_privilege('headwater_api', 'headwater.release_device(text, text, text)', 'EXECUTE')
    AND has_schema_privilege('headwater_api', 'headwater', 'USAGE') THEN
    RETURN nullif(array_to_string(missing, ' '), '');
  END IF;
  BEGIN
    GRANT USAGE ON SCHEMA headwater TO headwater_api;
  EXCEPTION
    WHEN insufficient_privilege THEN NULL;
  END;
  IF NOT has_schema_privilege('headwater_api', 'headwater', 'USAGE') THEN
    missing := missing || usage;
  END IF;
  GRANT SELECT, DELETE ON headwater.alert_rules, headwater.silences, headwater.user_devices TO headwater_api;
  GRANT INSERT (user_id, name, table_name, match, group_by, condition, clear_condition, for_seconds, keep_firing_for_seconds,
                cooldown_seconds, severity, channels, enabled),
        UPDATE (name, table_name, match, group_by, condition, clear_condition, for_seconds, keep_firing_for_seconds,
                cooldown_seconds, severity, channels, enabled) ON headwater.alert_rules TO headwater_api;
  GRANT INSERT (user_id, rule_id, match, comment, starts_at, ends_at), UPDATE (rule_id, match, comment, starts_at, ends_at)
     ON headwater.silences TO headwater_api;
  GRANT INSERT (user_id, endpoint, p256dh, auth, label), UPDATE (p256dh, auth, label) ON headwater.user_devices TO headwater_api;
  GRANT SELECT ON headwater.alert_history, headwater.notification_logs TO headwater_api;
  GRANT SELECT (job_id, transition, alert_id, rule_id, user_id, at, channel, target, state, reason, digest_id, attempts,
                planned_at, next_attempt_at, delivered_at, last_status) ON headwater.notification_jobs TO headwater_api;
  GRANT EXECUTE ON FUNCTION headwater.release_device(text, text, text) TO headwater_api;
  RETURN nullif(array_to_string(missing, ' '), '');
END
$$;
COMMENT ON FUNCTION headwater.ensure_api_role() IS
  'Makes the role headwater_api and gives it what it needs, if that is missing. Returns the statements that only someone with more privileges can run, or NULL';
REVOKE ALL ON FUNCTION headwater.ensure_api_role() FROM PUBLIC;
