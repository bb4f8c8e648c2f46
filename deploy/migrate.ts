import { connectPostgres, DatabaseError, escapeIdentifier, type PgClient } from '../pipeline/clients/postgres.ts';
import { HeadwaterError, messageOf, refused, usage } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { migrationsOf, type Migration, type MigrationSet } from './migration-files.ts';

export interface MigrateOptions {
  /** Also the demo market's tables, in `public`. Never on a database that is not ours. */
  readonly demo: boolean;
  readonly log: Logger;
  /** Where the folders of SQL files are; for tests. */
  readonly directory?: string;
}

export interface Migrated {
  /** Names of the migrations that this call applied, in order. */
  readonly applied: string[];
}

/** Any number will do, as long as all starters use the same one and nobody else does. */
const lockKey = '7453010355071241';

/**
 * Brings the schema up to date: each SQL file in a transaction of its own, in the order of names, recorded in
 * `headwater.migrations`. Several starters at once take turns; what is there already is left alone, and then no
 * privilege beyond reading is needed.
 * @throws HeadwaterError `newer_schema` (usage), `missing_privilege` (usage), `unsafe_schema` (refused), `migration_failed`
 */
export async function migrate(url: string, options: MigrateOptions): Promise<Migrated> {
  const sets: MigrationSet[] = options.demo ? ['headwater', 'demo'] : ['headwater'];
  const wanted = (await Promise.all(sets.map((set) => migrationsOf(set, options.directory)))).flat();
  const client = await connectPostgres(url, 'headwater-migrate', options.log);
  try {
    const done = await recorded(client);
    refuseNewer(done, wanted, sets);
    const missing = wanted.filter(({ name }) => !done.has(name));
    if (missing.length > 0) await prepare(client);
    const applied: string[] = [];
    for (const migration of missing) {
      if (await apply(client, migration)) applied.push(migration.name);
    }
    if (applied.length > 0) options.log.info({ applied }, `migrated: ${applied.join(', ')}`);
    for (const role of roles) await ensureRole(client, role, options.log);
    return { applied };
  } finally {
    await client.end();
  }
}

/** Roles by which people get at rows over HTTP, and what works only with them. */
const roles = [
  { name: 'headwater_api', ensure: 'headwater.ensure_api_role()', use: 'alerts over HTTP are' },
  { name: 'headwater_query', ensure: 'headwater.ensure_query_role()', use: 'queries over HTTP are' },
] as const;

/**
 * Roles belong to the cluster: a database that comes from a dump, or whose user may not make roles, lacks them. Everything but what
 * is done by them works without.
 */
async function ensureRole(client: PgClient, { name, ensure, use }: (typeof roles)[number], log: Logger): Promise<void> {
  try {
    const known = await client.query<{ known: boolean }>(`SELECT to_regprocedure('${ensure}') IS NOT NULL AS known`);
    if (!known.rows[0]?.known) return;
    const missing = await locked(client, `making the role ${name}`, async () => {
      const { rows } = await client.query<{ missing: string | null }>(`SELECT ${ensure} AS missing`);
      return rows[0]?.missing ?? undefined;
    });
    if (missing !== undefined) log.warn(`${use} off until a superuser of the database has run: ${missing}`);
  } catch (error) {
    log.warn({ error: messageOf(error) }, `${use} off: the role ${name} could not be made or checked`);
  }
}

async function recorded(client: PgClient): Promise<Set<string>> {
  const found = await client
    .query<{ there: boolean }>(`SELECT to_regclass('headwater.migrations') IS NOT NULL AS there`)
    .catch(explain('reading the schema', client));
  if (!found.rows[0]?.there) return new Set();
  const { rows } = await client
    .query<{ name: string }>('SELECT name FROM headwater.migrations')
    .catch(explain('reading headwater.migrations', client));
  return new Set(rows.map(({ name }) => name));
}

function refuseNewer(done: ReadonlySet<string>, wanted: readonly Migration[], sets: readonly string[]): void {
  const ours = new Set(wanted.map(({ name }) => name));
  const newer = [...done].filter((name) => !ours.has(name) && sets.some((set) => name.startsWith(`${set}/`)));
  if (newer.length === 0) return;
  throw usage(
    'newer_schema',
    `the database has migrations that this version does not know: ${newer.sort().join(', ')}`,
    'it was migrated by a newer Headwater: use that version, or another database',
  );
}

/** The schema and the record, in one locked transaction. CREATE SCHEMA IF NOT EXISTS asks for the privilege even when the schema is there. */
async function prepare(client: PgClient): Promise<void> {
  await locked(client, 'creating the schema headwater', async () => {
    const { rows } = await client.query<{ there: boolean }>(`SELECT to_regnamespace('headwater') IS NOT NULL AS there`);
    if (!rows[0]?.there) await client.query('CREATE SCHEMA headwater');
    await client.query(
      `CREATE TABLE IF NOT EXISTS headwater.migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`,
    );
  });
}

/** False when another starter was faster. */
async function apply(client: PgClient, migration: Migration): Promise<boolean> {
  return locked(client, `the migration ${migration.name}`, async () => {
    const { rowCount } = await client.query('SELECT FROM headwater.migrations WHERE name = $1', [migration.name]);
    if (rowCount !== 0) return false;
    await client.query(migration.sql);
    await client.query('INSERT INTO headwater.migrations (name) VALUES ($1)', [migration.name]);
    return true;
  });
}

/** The lock ends with its transaction, whatever becomes of this process, and works behind transaction-pooling proxies. */
async function locked<T>(client: PgClient, what: string, work: () => Promise<T>): Promise<T> {
  try {
    await client.query('BEGIN');
    await client.query(`SELECT pg_advisory_xact_lock(${lockKey})`);
    const result = await work();
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    return explain(what, client)(error);
  }
}

function explain(what: string, client: PgClient): (error: unknown) => Promise<never> {
  return async (error) => {
    const code = error instanceof DatabaseError ? error.code : undefined;
    if (code === '42501') throw await missingPrivilege(what, client, error);
    if (code === '42P07' || code === '42710' || code === '42723') {
      throw refused(
        'unsafe_schema',
        `${what} failed: ${messageOf(error)}; something that Headwater did not create has its name`,
        'rename or drop it, or use another database',
      );
    }
    throw new HeadwaterError('migration_failed', `${what} failed: ${messageOf(error)}`, { cause: error });
  };
}

async function missingPrivilege(what: string, client: PgClient, cause: unknown): Promise<HeadwaterError> {
  const { rows } = await client.query<{ role: string; database: string; schema: boolean }>(
    `SELECT current_user AS role, current_database() AS database, to_regnamespace('headwater') IS NOT NULL AS schema`,
  );
  const { role = '', database = '', schema = false } = rows[0] ?? {};
  const [user, name] = [escapeIdentifier(role), escapeIdentifier(database)];
  const mend = what.includes('demo/')
    ? [`GRANT CREATE ON SCHEMA public TO ${user};`]
    : schema
      ? [`GRANT USAGE, CREATE ON SCHEMA headwater TO ${user};`, `GRANT SELECT, INSERT ON headwater.migrations TO ${user};`]
      : [`GRANT CREATE ON DATABASE ${name} TO ${user};`];
  return new HeadwaterError(
    'missing_privilege',
    `the role ${role} may not do this in the database ${database}: ${what}: ${messageOf(cause)}`,
    {
      reaction: 'usage',
      hint: `as the owner or a superuser: ${mend.join(' ')}`,
      cause,
    },
  );
}
