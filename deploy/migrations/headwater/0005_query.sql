-- Queries over HTTP run as the role headwater_query, in transactions that cannot write. It may read the columns of captured tables
-- that reach the log, and nothing else; which ones those are depends on the catalogue, so the gateway grants them as it meets the tables.

-- Roles belong to the cluster, not to this database, and a dump has none: so this is asked at each migration, not done once.
CREATE FUNCTION headwater.ensure_query_role() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  settable CONSTANT text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
  membership CONSTANT text := format('GRANT headwater_query TO %I;', current_user);
  missing text[] := '{}';
BEGIN
  IF to_regrole('headwater_query') IS NULL THEN
    BEGIN
      CREATE ROLE headwater_query NOLOGIN;
    EXCEPTION
      -- Another database of this cluster was faster.
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        RETURN 'CREATE ROLE headwater_query NOLOGIN; ' || membership;
    END;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_query' AND (rolsuper OR rolbypassrls)) THEN
    missing := missing || 'ALTER ROLE headwater_query NOSUPERUSER NOBYPASSRLS;'::text;
  END IF;
  -- What it could do by another role, it could do.
  missing := missing || array(
    SELECT format('REVOKE %I FROM headwater_query;', r.rolname) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
     WHERE m.member = to_regrole('headwater_query') ORDER BY 1);
  IF NOT pg_has_role(current_user, 'headwater_query', settable) THEN
    BEGIN
      EXECUTE membership;
    EXCEPTION
      WHEN unique_violation THEN NULL;
      WHEN insufficient_privilege THEN missing := missing || membership;
    END;
  END IF;
  RETURN nullif(array_to_string(missing, ' '), '');
END
$$;
COMMENT ON FUNCTION headwater.ensure_query_role() IS
  'Makes the role headwater_query, if it is missing. Returns the statements that only someone with more privileges can run, or NULL';
REVOKE ALL ON FUNCTION headwater.ensure_query_role() FROM PUBLIC;

CREATE FUNCTION headwater.let_queries_read(relation regclass, readable text[]) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  reader CONSTANT oid := to_regrole('headwater_query');
  schema_oid CONSTANT oid := (SELECT relnamespace FROM pg_class WHERE oid = relation);
  usage CONSTANT text := format('GRANT USAGE ON SCHEMA %s TO headwater_query;', schema_oid::regnamespace);
  revocation CONSTANT text := format('REVOKE ALL ON TABLE %s FROM headwater_query;', relation);
  permission CONSTANT text := format('GRANT SELECT (%s) ON TABLE %s TO headwater_query;',
    (SELECT string_agg(quote_ident(name), ', ') FROM unnest(readable) name), relation);
  missing text := '';
BEGIN
  IF reader IS NULL OR schema_oid IS NULL THEN
    RETURN NULL;
  END IF;
  -- Two gateways at once: Postgres lets only one change the privileges of a table, and fails the other.
  PERFORM pg_advisory_xact_lock(7453010355071242);
  IF cardinality(readable) > 0 AND NOT has_schema_privilege(reader, schema_oid, 'USAGE') THEN
    BEGIN
      EXECUTE usage;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    IF NOT has_schema_privilege(reader, schema_oid, 'USAGE') THEN
      missing := usage || ' ';
    END IF;
  END IF;
  BEGIN
    -- Changing privileges takes no lock: whoever alters the table at the same moment would fail.
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', relation);
    EXECUTE revocation;
    IF cardinality(readable) > 0 THEN
      EXECUTE permission;
    END IF;
  EXCEPTION WHEN insufficient_privilege THEN NULL;
  END;
  -- Who has a privilege but may not pass it on is only warned.
  IF EXISTS (SELECT FROM unnest(readable) name WHERE NOT has_column_privilege(reader, relation, name, 'SELECT')) THEN
    missing := missing || permission;
  END IF;
  RETURN nullif(rtrim(missing), '');
END
$$;
COMMENT ON FUNCTION headwater.let_queries_read(regclass, text[]) IS
  'Lets the role headwater_query read these columns of a table, and no others. Returns the statements that only someone with more privileges can run, or NULL';
REVOKE ALL ON FUNCTION headwater.let_queries_read(regclass, text[]) FROM PUBLIC;

-- What all gateways have to know alike and nobody else may. Never captured.
CREATE TABLE headwater.secrets (
  name text PRIMARY KEY,
  value text NOT NULL DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
);
COMMENT ON TABLE headwater.secrets IS 'Random secrets of the gateways. cursors: signs the cursors of queries; those that were given before it changes are refused';
INSERT INTO headwater.secrets (name) VALUES ('cursors');
