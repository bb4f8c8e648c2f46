import { expect } from 'chai';
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { migrate } from '../../../../deploy/migrate.ts';
import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { freshDatabase, type FreshDatabase } from '../../../support/servers.ts';

const log = silentLogger();
const [annsAlert, bobsAlert] = [randomUUID(), randomUUID()];

/** One row of everything, for each of two people. */
const seed = ['ann', 'bob']
  .map((user) => {
    const alert = user === 'ann' ? annsAlert : bobsAlert;
    return `
    INSERT INTO headwater.alert_rules (user_id, name, table_name, condition) VALUES ('${user}', 'r', 'public.t', '{"field":"a","op":"is_null"}');
    INSERT INTO headwater.silences (user_id, ends_at) VALUES ('${user}', now() + '1 day');
    INSERT INTO headwater.user_devices (user_id, endpoint, p256dh, auth) VALUES ('${user}', 'https://push.example/${user}', 'k-${user}', 's-${user}');
    INSERT INTO headwater.alert_history (id, rule_id, revision, user_id, entity, severity, state, fired_at, fired_seq)
      VALUES ('${alert}', gen_random_uuid(), 1, '${user}', '{}', 'info', 'firing', now(), 1);
    INSERT INTO headwater.notification_jobs (job_id, transition, alert_id, rule_id, user_id, at, channel, target_key, target, endpoint, state)
      VALUES ('job-of-${user}', 'firing', '${alert}', gen_random_uuid(), '${user}', now(), 'email', 'k', '{}', 'mail', 'suppressed');
    INSERT INTO headwater.notification_logs (job_id, alert_id, rule_id, user_id, transition, channel, target, status)
      VALUES ('job-of-${user}', '${alert}', gen_random_uuid(), '${user}', 'firing', 'email', 'x', 'delivered');`;
  })
  .join('');

const tables = ['alert_rules', 'silences', 'user_devices', 'alert_history', 'notification_jobs', 'notification_logs'];

describe('row security', function () {
  this.timeout(120_000);
  let database: FreshDatabase;
  let client: PgClient;

  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log });
    client = await connectPostgres(database.url, 'test', log);
    await client.query(seed);
  });
  after(async () => {
    await client.end();
    await database.drop();
  });

  /** Runs one statement as somebody, as the routes do, and takes it back. */
  async function as(owner: string | undefined, sql: string, values?: readonly unknown[]): Promise<{ rows: unknown[]; code?: string }> {
    await client.query('BEGIN; SET LOCAL ROLE headwater_api');
    try {
      if (owner !== undefined) await client.query(`SELECT set_config('headwater.user_id', $1, true)`, [owner]);
      const { rows, rowCount } = await client.query(sql, values && [...values]);
      return { rows: sql.startsWith('SELECT') ? rows : Array.from({ length: rowCount ?? 0 }) };
    } catch (error) {
      return { rows: [], code: (error as { code: string }).code };
    } finally {
      await client.query('ROLLBACK');
    }
  }

  for (const table of tables) {
    it(`${table}: a SELECT without WHERE shows one's own rows, and none without a name`, async () => {
      expect((await as('ann', `SELECT user_id FROM headwater.${table}`)).rows).to.deep.equal([{ user_id: 'ann' }]);
      expect((await as('eve', `SELECT user_id FROM headwater.${table}`)).rows).to.deep.equal([]);
      expect((await as('', `SELECT user_id FROM headwater.${table}`)).rows).to.deep.equal([]);
      expect((await as(undefined, `SELECT user_id FROM headwater.${table}`)).rows).to.deep.equal([]);
      expect((await as('ann', `SELECT user_id FROM headwater.${table} WHERE user_id = 'bob' OR true`)).rows).to.deep.equal([
        { user_id: 'ann' },
      ]);
    });
  }

  it('an UPDATE or DELETE without WHERE reaches one’s own rows only', async () => {
    const updates = { alert_rules: `name = 'x'`, silences: `comment = 'x'`, user_devices: `label = 'x'` };
    for (const [table, change] of Object.entries(updates)) {
      expect((await as('ann', `UPDATE headwater.${table} SET ${change}`)).rows, table).to.have.length(1);
      expect((await as('eve', `UPDATE headwater.${table} SET ${change}`)).rows, table).to.have.length(0);
      expect((await as('ann', `DELETE FROM headwater.${table}`)).rows, table).to.have.length(1);
      expect((await as('eve', `DELETE FROM headwater.${table}`)).rows, table).to.have.length(0);
    }
  });

  it('nothing can be written in another’s name, or given to him', async () => {
    const inserts = [
      `INSERT INTO headwater.alert_rules (user_id, name, table_name, condition) VALUES ('bob', 'r', 'public.t', '{}')`,
      `INSERT INTO headwater.silences (user_id, ends_at) VALUES ('bob', now() + '1 day')`,
      `INSERT INTO headwater.user_devices (user_id, endpoint, p256dh, auth) VALUES ('bob', 'https://push.example/new', 'k', 's')`,
      // What a conflict reveals or changes of a row that is hidden.
      `INSERT INTO headwater.user_devices (user_id, endpoint, p256dh, auth) VALUES ('ann', 'https://push.example/bob', 'k', 's')
         ON CONFLICT (endpoint) DO UPDATE SET auth = 'stolen'`,
    ];
    for (const insert of inserts) expect((await as('ann', insert)).code, insert).to.equal('42501');
    for (const table of ['alert_rules', 'silences', 'user_devices'])
      expect((await as('ann', `UPDATE headwater.${table} SET user_id = 'bob'`)).code, table).to.equal('42501');
  });

  it('what only the processors write cannot be written at all, nor ids, revisions and times', async () => {
    for (const table of ['alert_history', 'notification_jobs', 'notification_logs']) {
      expect((await as('ann', `DELETE FROM headwater.${table}`)).code, table).to.equal('42501');
      expect((await as('ann', `UPDATE headwater.${table} SET user_id = user_id`)).code, table).to.equal('42501');
      expect((await as('ann', `INSERT INTO headwater.${table} (user_id) VALUES ('ann')`)).code, table).to.equal('42501');
    }
    for (const column of ['id = gen_random_uuid()', 'revision = 7', 'created_at = now()', 'updated_at = now()'])
      expect((await as('ann', `UPDATE headwater.alert_rules SET ${column}`)).code, column).to.equal('42501');
    expect((await as('ann', 'SELECT notice FROM headwater.notification_jobs')).code).to.equal('42501');
  });

  it('everything else of Headwater is out of reach', async () => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'headwater' AND NOT tablename = ANY ($1)`,
      [tables],
    );
    const others = rows.map(({ name }) => name);
    expect(others).to.include.members(['api_keys', 'users', 'alert_outbox', 'processor_offsets', 'migrations']);
    for (const name of others) expect((await as('ann', `SELECT FROM headwater.${name}`)).code, name).to.equal('42501');
    expect((await as('ann', 'TRUNCATE headwater.alert_rules')).code).to.equal('42501');
    expect((await as('ann', 'SELECT headwater.ensure_api_role()')).code).to.equal('42501');
    expect((await as('ann', 'CREATE TABLE headwater.mine (id int)')).code).to.equal('42501');
  });

  it('a rule’s revision grows with an edit by this role too', async () => {
    await client.query('BEGIN; SET LOCAL ROLE headwater_api');
    await client.query(`SELECT set_config('headwater.user_id', 'ann', true)`);
    const { rows } = await client.query(`UPDATE headwater.alert_rules SET name = 'other' RETURNING revision`);
    await client.query('ROLLBACK');
    expect(rows).to.deep.equal([{ revision: 2 }]);
  });

  it('a device goes to another user only with the browser’s keys, which its endpoint alone is not', async () => {
    const count = `SELECT user_id FROM headwater.user_devices`;
    const release = (auth: string): string =>
      `SELECT headwater.release_device('https://push.example/bob', 'k-bob', '${auth}'); SELECT set_config('headwater.user_id', 'bob', true); ${count}`;
    const left = async (auth: string): Promise<number> => {
      await client.query(`BEGIN; SET LOCAL ROLE headwater_api; SELECT set_config('headwater.user_id', 'ann', true)`);
      const results = (await client.query(release(auth))) as unknown as { rows: unknown[] }[];
      await client.query('ROLLBACK');
      return results.at(-1)!.rows.length;
    };
    expect(await left('guessed')).to.equal(1);
    expect(await left('s-bob')).to.equal(0);
  });
});

describe('the role headwater_api', function () {
  this.timeout(120_000);
  const opened: { drop(): Promise<void> }[] = [];

  afterEach(async () => {
    for (const each of opened.splice(0).toReversed()) await each.drop();
  });

  async function database(): Promise<FreshDatabase> {
    const fresh = await freshDatabase();
    opened.push(fresh);
    return fresh;
  }

  async function run(url: string, sql: string): Promise<void> {
    const client = await connectPostgres(url, 'test', log);
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  }

  /** A user of the test's own, and the database as he reaches it. */
  async function user(on: FreshDatabase, attributes: string): Promise<string> {
    const name = `${on.name}_${opened.length}`;
    await run(on.url, `CREATE ROLE "${name}" LOGIN PASSWORD 'x' ${attributes}; GRANT CREATE ON DATABASE "${on.name}" TO "${name}"`);
    opened.push({ drop: () => run(on.url, `DROP OWNED BY "${name}" CASCADE; DROP ROLE "${name}"`) });
    const url = new URL(on.url);
    [url.username, url.password] = [name, 'x'];
    return url.toString();
  }

  /** What `migrate` says, and whether rows can be reached through the role afterwards. */
  async function migrated(url: string): Promise<{ warnings: string; works: boolean }> {
    const lines: string[] = [];
    // The role of queries is made beside it, and has tests of its own.
    const logger = pino({ level: 'warn' }, { write: (line: string) => void (line.includes('headwater_query') || lines.push(line)) });
    await migrate(url, { demo: false, log: logger });
    const works = await run(url, 'BEGIN; SET LOCAL ROLE headwater_api; SELECT FROM headwater.alert_rules').then(
      () => true,
      () => false,
    );
    return { warnings: lines.join(''), works };
  }

  it('is made once by databases of one cluster that are migrated at the same time', async () => {
    const databases = await Promise.all([1, 2, 3, 4].map(database));
    for (const outcome of await Promise.all(databases.map(({ url }) => migrated(url))))
      expect(outcome).to.deep.equal({ warnings: '', works: true });
  });

  it('an ordinary owner of a database migrates it, hears what is missing, and that is enough', async () => {
    const fresh = await database();
    const url = await user(fresh, '');
    const first = await migrated(url);
    expect(first.works).to.equal(false);
    const missing = /has run: ([^"]*;)/.exec(first.warnings)?.[1] ?? '';
    expect(missing).to.include('GRANT headwater_api TO');
    await run(fresh.url, missing);
    expect(await migrated(url)).to.deep.equal({ warnings: '', works: true });
  });

  it('where it is not there and may not be made, that is said instead of an error', async () => {
    const fresh = await database();
    const url = await user(fresh, '');
    await migrated(url);
    const client = await connectPostgres(fresh.url, 'test', log);
    try {
      const name = new URL(url).username;
      // Other databases of the cluster have it, and must not notice.
      await client.query(`BEGIN; ALTER ROLE headwater_api RENAME TO "other_${fresh.name}"; SET LOCAL ROLE "${name}"`);
      const { rows } = await client.query('SELECT headwater.ensure_api_role() AS missing');
      expect(rows).to.deep.equal([{ missing: `CREATE ROLE headwater_api NOLOGIN; GRANT headwater_api TO ${name};` }]);
    } finally {
      await client.query('ROLLBACK');
      await client.end();
    }
  });

  it('a user who may make roles needs nobody, even if somebody else of the cluster has made it', async () => {
    await migrated((await database()).url);
    const fresh = await database();
    const url = await user(fresh, 'CREATEROLE');
    const outcome = await migrated(url);
    // From PostgreSQL 16 on, whoever has not made a role cannot grant it either.
    if (!outcome.works) {
      expect(outcome.warnings).to.include('GRANT headwater_api TO');
      await run(fresh.url, /has run: ([^"]*;)/.exec(outcome.warnings)![1]!);
    }
    expect(await migrated(url)).to.deep.equal({ warnings: '', works: true });
  });

  it('in a schema that somebody else has made, its USAGE is asked for too', async () => {
    const fresh = await database();
    const url = await user(fresh, '');
    await run(fresh.url, `CREATE SCHEMA headwater; GRANT USAGE, CREATE ON SCHEMA headwater TO "${new URL(url).username}"`);
    const { warnings } = await migrated(url);
    expect(warnings).to.include('GRANT USAGE ON SCHEMA headwater TO headwater_api;');
    await run(fresh.url, /has run: ([^"]*;)/.exec(warnings)![1]!);
    expect(await migrated(url)).to.deep.equal({ warnings: '', works: true });
  });
});
