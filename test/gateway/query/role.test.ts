import { expect } from 'chai';
import { pino } from 'pino';
import { migrate } from '../../../deploy/migrate.ts';
import { connectPostgres, type PgClient } from '../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { defiCatalog } from '../../../schemas/catalog-file.ts';
import { unnamedEntry, type Catalog } from '../../../schemas/catalog.ts';
import { freshDatabase, type FreshDatabase } from '../../support/servers.ts';
import { startQueryRest, type QueryRest } from './support/query-rest.ts';

const denied = '42501';

/** One table leaves a column out of the log, one is left out itself. */
const catalog: Catalog = {
  ...defiCatalog(),
  tables: new Map([...defiCatalog().tables, ['public.people', { ...unnamedEntry, channel: 'people', exclude: ['secret'] }]]),
  exclude: ['audit.*', 'public.hidden'],
};

const seed = `
  CREATE TABLE public.people (id int PRIMARY KEY, name text, secret text);
  INSERT INTO public.people VALUES (1, 'ann', 'annsecret');
  CREATE TABLE public.hidden (id int PRIMARY KEY);
  CREATE SCHEMA audit; CREATE TABLE audit.trail (id int PRIMARY KEY);
  CREATE TABLE public.notes (id int PRIMARY KEY, owner text NOT NULL, note text);
  INSERT INTO public.notes VALUES (1, 'ann', 'of ann'), (2, 'bob', 'of bob');
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.notes USING (owner = current_setting('headwater.user_id', true));
  INSERT INTO public.chains VALUES ('base', 'Base', 'ETH');
  INSERT INTO headwater.alert_history (id, rule_id, revision, user_id, entity, severity, state, fired_at, fired_seq)
    SELECT gen_random_uuid(), gen_random_uuid(), 1, name, '{}', 'info', 'firing', now(), 1 FROM unnest(ARRAY['ann', 'bob']) name`;

describe('the role of queries', function () {
  this.timeout(120_000);
  let rest: QueryRest;
  let client: PgClient;

  before(async () => {
    rest = await startQueryRest({ catalog, seed });
    // What is granted is granted when it is asked for the first time.
    for (const from of ['people', 'chains', 'prices', 'notes', 'headwater.alert_history', 'hidden', 'audit.trail'])
      await rest.post({ from }, 'secret');
    client = await connectPostgres(rest.databaseUrl, 'test', silentLogger());
  });
  after(async () => {
    await client?.end();
    await rest?.close();
  });

  /** Runs SQL as the role itself, and takes it back: its error's code, or its rows. */
  async function asRole(sql: string): Promise<string | unknown[]> {
    await client.query('BEGIN; SET LOCAL SESSION AUTHORIZATION headwater_query');
    try {
      return (await client.query<Record<string, unknown>>(sql)).rows;
    } catch (error) {
      return (error as { code: string }).code;
    } finally {
      await client.query('ROLLBACK');
    }
  }

  it('reads the columns of captured tables that reach the log', async () => {
    expect(await asRole('SELECT id, name FROM public.people')).to.deep.equal([{ id: 1, name: 'ann' }]);
    expect(await asRole('SELECT slug FROM public.chains')).to.deep.equal([{ slug: 'base' }]);
    expect(await asRole('SELECT count(*)::int AS n FROM public.prices')).to.deep.equal([{ n: 0 }]);
  });

  const refusals: readonly string[] = [
    // Columns and tables that never reach the log, and Headwater's own.
    'SELECT secret FROM public.people',
    'SELECT * FROM public.people',
    'SELECT people FROM public.people',
    'SELECT 1 FROM public.hidden',
    'SELECT 1 FROM audit.trail',
    'SELECT 1 FROM public.tokens',
    ...[
      'api_keys',
      'users',
      'user_devices',
      'alert_rules',
      'silences',
      'notification_jobs',
      'notification_logs',
      'migrations',
      'secrets',
    ].map((table) => `SELECT 1 FROM headwater.${table}`),
    // What the server keeps for others.
    'SELECT passwd FROM pg_catalog.pg_shadow',
    'SELECT rolpassword FROM pg_catalog.pg_authid',
    `SELECT pg_catalog.pg_read_file('postgresql.conf')`,
    `SELECT pg_catalog.pg_ls_dir('.')`,
    `COPY public.chains TO '/tmp/headwater-out'`,
    `COPY (SELECT 1) TO PROGRAM 'cat'`,
    // Writing.
    `INSERT INTO public.chains VALUES ('x', 'x', 'x')`,
    `UPDATE public.chains SET name = 'x'`,
    'DELETE FROM public.chains',
    'TRUNCATE public.chains',
    'SELECT 1 FROM public.chains FOR UPDATE',
    'LOCK TABLE public.chains IN SHARE MODE',
    'ALTER TABLE public.chains ADD x int',
    'DROP TABLE public.chains',
    'CREATE TABLE headwater.mine (id int)',
    'CREATE TABLE audit.mine (id int)',
    'CREATE SCHEMA mine',
    'CREATE ROLE mine',
    'CREATE PUBLICATION mine',
    `SELECT headwater.let_queries_read('public.hidden', ARRAY['id'])`,
    'SELECT headwater.ensure_query_role()',
    'GRANT SELECT ON public.hidden TO headwater_query',
    'SET ROLE headwater_api',
  ];
  for (const sql of refusals) {
    it(`may not: ${sql}`, async () => expect(await asRole(sql)).to.equal(denied));
  }

  it('sees, of a table with row security, what its policies show to the owner of the key', async () => {
    expect(await asRole('SELECT id FROM public.notes')).to.deep.equal([]);
    expect((await rest.post({ from: 'notes' }, 'secret')).body.items).to.deep.equal([{ id: 1, owner: 'ann', note: 'of ann' }]);
    expect((await rest.post({ from: 'notes' }, 'bob')).body.items).to.deep.equal([{ id: 2, owner: 'bob', note: 'of bob' }]);
    // An owner is a value, whatever it is.
    for (const as of ['secret', 'bob']) {
      const { items } = (await rest.post({ from: 'headwater.alert_history', select: ['user_id'] }, as)).body;
      expect(items).to.deep.equal([{ user_id: as === 'bob' ? 'bob' : 'ann' }]);
    }
  });

  it('answers of such a table are never kept: the next owner does not get them', async () => {
    for (let i = 0; i < 3; i++) {
      for (const [as, id] of [
        ['secret', 1],
        ['bob', 2],
      ] as const) {
        const { body } = await rest.post({ from: 'notes', select: ['id'] }, as);
        expect(body).to.deep.include({ items: [{ id }], cache: 'miss' });
      }
    }
  });

  it('does not get at columns and tables that are left out by their names either', async () => {
    for (const query of [
      { from: 'people', select: ['secret'] },
      { from: 'people', where: 'secret = "annsecret"' },
      { from: 'people', orderBy: [{ field: 'secret', dir: 'asc' }] },
      { from: 'people', groupBy: ['secret'] },
      { from: 'people', aggregate: { n: { fn: 'max', field: 'secret' } } },
      { from: 'hidden' },
      { from: 'audit.trail' },
      { from: 'headwater.api_keys' },
      { from: 'pg_catalog.pg_class' },
      { from: 'public.people; DROP TABLE public.people' },
      { from: 'public."people"' },
    ]) {
      const answer = await rest.post(query);
      expect(answer.status, JSON.stringify(query)).to.equal(400);
      expect(answer.error.code).to.equal('bad_query');
      expect(answer.text).not.to.include('annsecret');
    }
  });
});

describe('the role of queries, where it is not there yet', function () {
  this.timeout(120_000);

  it('where it may not be made, the migration says which statements an administrator runs', async () => {
    const database = await freshDatabase();
    const user = `${database.name}_user`;
    const client = await connectPostgres(database.url, 'test', silentLogger());
    try {
      const lines: string[] = [];
      const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
      await client.query(`CREATE ROLE "${user}" LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE "${database.name}" TO "${user}"`);
      const url = new URL(database.url);
      [url.username, url.password] = [user, 'x'];
      await migrate(url.toString(), { demo: false, log });
      // Other databases of the cluster have it, and must not notice.
      await client.query(`BEGIN; ALTER ROLE headwater_query RENAME TO "other_${database.name}"; SET LOCAL ROLE "${user}"`);
      const { rows } = await client.query('SELECT headwater.ensure_query_role() AS missing');
      await client.query('ROLLBACK');
      expect(rows).to.deep.equal([{ missing: `CREATE ROLE headwater_query NOLOGIN; GRANT headwater_query TO ${user};` }]);
      const said = lines.find((line) => line.includes('queries over HTTP are off until a superuser of the database has run'))!;
      await client.query(/has run: ([^"]*;)/.exec(said)![1]!);
      lines.length = 0;
      await migrate(url.toString(), { demo: false, log });
      expect(lines.filter((line) => line.includes('headwater_query'))).to.deep.equal([]);
    } finally {
      await client.query(`DROP OWNED BY "${user}" CASCADE; DROP ROLE "${user}"`);
      await client.end();
      await database.drop();
    }
  });

  /** The query API of a gateway whose user at the database may do no more than `grants` say. */
  async function poorGateway(grants: (user: string) => string): Promise<{ rest: QueryRest; user: string; lines: string[] }> {
    let user = '';
    const lines: string[] = [];
    const rest = await startQueryRest({
      seed: `INSERT INTO public.chains VALUES ('base', 'Base', 'ETH')`,
      gatewayUrl: (databaseUrl) => {
        const url = new URL(databaseUrl);
        user = `${url.pathname.slice(1)}_gateway`;
        [url.username, url.password] = [user, 'x'];
        return url.toString();
      },
      logger: pino({ level: 'error' }, { write: (line: string) => void lines.push(line) }),
    });
    await rest.sql(`CREATE ROLE "${user}" LOGIN PASSWORD 'x'; ${grants(user)}`);
    return { rest, user, lines };
  }

  it('queries are answered 503 until the statements have been run, then without a restart', async () => {
    const { rest, user, lines } = await poorGateway(
      (name) => `GRANT USAGE ON SCHEMA headwater TO "${name}"; GRANT SELECT ON headwater.secrets, public.chains TO "${name}";
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater TO "${name}"`,
    );
    try {
      const refused = await rest.post({ from: 'chains' });
      expect([refused.status, refused.error.code]).to.deep.equal([503, 'unavailable']);
      expect(refused.error.message).to.include('the database is not set up for this query');
      expect(lines.at(-1)).to.include(`GRANT headwater_query TO ${user};`);
      await rest.sql(`GRANT headwater_query TO "${user}"`);
      expect((await rest.post({ from: 'chains' })).status).to.equal(503);
      await rest.sql('GRANT SELECT (slug, name, native_token) ON public.chains TO headwater_query');
      expect((await rest.post({ from: 'chains' })).body.items).to.have.length(1);
    } finally {
      await rest.sql(`DROP OWNED BY "${user}"; DROP ROLE "${user}"`);
      await rest.close();
    }
  });

  const columns = 'GRANT SELECT (slug, name, native_token) ON public.chains TO headwater_query;';
  const lacking: [string, (user: string) => string, RegExp][] = [
    ['Headwater’s functions', () => columns, /permission denied for (?:table secrets|schema headwater)/],
    [
      'what mends the role',
      (user) => `${columns} GRANT USAGE ON SCHEMA headwater TO "${user}"; GRANT SELECT ON headwater.secrets, public.chains TO "${user}"`,
      /permission denied for function ensure_query_role/,
    ],
    [
      'what a policy asks',
      (user) => `${columns} GRANT USAGE ON SCHEMA headwater TO "${user}"; GRANT SELECT ON headwater.secrets, public.chains TO "${user}";
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater TO "${user}"; GRANT headwater_query TO "${user}";
        ALTER TABLE public.chains ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON public.chains USING (EXISTS (SELECT FROM public.tokens))`,
      /permission denied for table tokens/,
    ],
  ];
  for (const [what, grants, reason] of lacking) {
    it(`without ${what} they are answered 503, and what an operator has to do is in the log`, async () => {
      const { rest, user, lines } = await poorGateway(grants);
      try {
        const { status, error, headers, text } = await rest.post({ from: 'chains' });
        expect([status, error.code, headers.get('retry-after')], text).to.deep.equal([503, 'unavailable', '60']);
        expect(text).not.to.include('permission denied');
        const said = lines.join('');
        expect(said).to.match(reason);
        expect(said).to.include('run `headwater migrate` as the owner');
      } finally {
        await rest.sql(`DROP OWNED BY "${user}"; DROP ROLE "${user}"`);
        await rest.close();
      }
    });
  }
});

describe('the role of queries, as the database changes', function () {
  this.timeout(120_000);
  const log = silentLogger();
  let database: FreshDatabase;
  let client: PgClient;
  beforeEach(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log });
    client = await connectPostgres(database.url, 'test', log);
    await client.query('CREATE TABLE public.t (id int PRIMARY KEY, a text, b text)');
  });
  afterEach(async () => {
    await client.end();
    await database.drop();
  });

  async function readable(): Promise<string[]> {
    const { rows } = await client.query<{ name: string }>(
      `SELECT attname AS name FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attnum > 0 AND NOT attisdropped
         AND has_column_privilege('headwater_query', attrelid, attnum, 'SELECT') ORDER BY attnum`,
    );
    return rows.map(({ name }) => name);
  }

  it('is given exactly the columns that it is to read, also when it had others', async () => {
    const letRead = (columns: string[]): Promise<unknown> => client.query(`SELECT headwater.let_queries_read('public.t', $1)`, [columns]);
    expect(await readable()).to.deep.equal([]);
    await letRead(['id', 'a']);
    expect(await readable()).to.deep.equal(['id', 'a']);
    await letRead(['id', 'b']);
    expect(await readable()).to.deep.equal(['id', 'b']);
    await client.query('GRANT SELECT ON public.t TO headwater_query');
    await letRead(['id']);
    expect(await readable()).to.deep.equal(['id']);
    await letRead([]);
    expect(await readable()).to.deep.equal([]);
  });

  it('several gateways at once give it without failing', async () => {
    const clients = await Promise.all([1, 2, 3, 4].map(() => connectPostgres(database.url, 'test', log)));
    try {
      const grant = async (each: PgClient): Promise<void> => {
        for (let i = 0; i < 10; i++) {
          const { rows } = await each.query(`SELECT headwater.let_queries_read('public.t', '{id,a}') AS missing`);
          expect(rows).to.deep.equal([{ missing: null }]);
        }
      };
      await Promise.all(clients.map(grant));
      expect(await readable()).to.deep.equal(['id', 'a']);
    } finally {
      await Promise.all(clients.map((each) => each.end()));
    }
  });

  it('is said to need what it must not have: memberships and a way around row security', async () => {
    const group = `${database.name}_group`;
    await client.query(`CREATE ROLE "${group}"; GRANT "${group}" TO headwater_query; ALTER ROLE headwater_query BYPASSRLS`);
    try {
      const { rows } = await client.query<{ missing: string }>('SELECT headwater.ensure_query_role() AS missing');
      expect(rows[0]!.missing).to.equal(`ALTER ROLE headwater_query NOSUPERUSER NOBYPASSRLS; REVOKE ${group} FROM headwater_query;`);
      await client.query(rows[0]!.missing);
      expect((await client.query('SELECT headwater.ensure_query_role() AS missing')).rows).to.deep.equal([{ missing: null }]);
    } finally {
      await client.query(`ALTER ROLE headwater_query NOBYPASSRLS; DROP ROLE "${group}"`);
    }
  });

  it('where the gateway may not grant, the statement for an administrator is said, and it is enough', async () => {
    const role = `${database.name}_user`;
    await client.query(`CREATE ROLE "${role}"; GRANT USAGE ON SCHEMA headwater TO "${role}"; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater TO "${role}";
      CREATE SCHEMA shop; CREATE TABLE shop."t t" (id int PRIMARY KEY, "a b" text); GRANT SELECT ON shop."t t" TO "${role}"; GRANT USAGE ON SCHEMA shop TO "${role}"`);
    try {
      const ask = `SELECT headwater.let_queries_read('shop."t t"', ARRAY['id', 'a b']) AS missing`;
      await client.query(`SET ROLE "${role}"`);
      const { rows } = await client.query<{ missing: string }>(ask);
      await client.query('RESET ROLE');
      expect(rows[0]!.missing).to.equal(
        'GRANT USAGE ON SCHEMA shop TO headwater_query; GRANT SELECT (id, "a b") ON TABLE shop."t t" TO headwater_query;',
      );
      await client.query(rows[0]!.missing);
      await client.query(`SET ROLE "${role}"`);
      expect((await client.query(ask)).rows).to.deep.equal([{ missing: null }]);
    } finally {
      await client.query(`RESET ROLE; DROP OWNED BY "${role}"; DROP ROLE "${role}"`);
    }
  });
});
