import { expect } from 'chai';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { migrate } from '../../deploy/migrate.ts';
import { migrationsOf } from '../../deploy/migration-files.ts';
import { connectPostgres } from '../../pipeline/clients/postgres.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { projectRoot } from '../project-root.ts';
import { freshDatabase, type FreshDatabase } from '../support/servers.ts';

async function failure(work: Promise<unknown>): Promise<HeadwaterError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof HeadwaterError) return error;
  throw new Error(`expected a HeadwaterError, not ${String(error)}`);
}

describe('migrations', function () {
  this.timeout(120_000);
  const log = silentLogger();
  let database: FreshDatabase;
  let directory: string;

  beforeEach(async () => {
    database = await freshDatabase();
    directory = mkdtempSync(join(tmpdir(), 'headwater-migrations-'));
    cpSync(join(projectRoot(), 'deploy', 'migrations'), directory, { recursive: true });
  });

  afterEach(async () => {
    rmSync(directory, { recursive: true, force: true });
    await database.drop();
  });

  async function query(sql: string, url = database.url): Promise<unknown[]> {
    const client = await connectPostgres(url, 'test', log);
    try {
      return (await client.query<{ value: unknown }>(sql)).rows.map(({ value }) => value);
    } finally {
      await client.end();
    }
  }

  /** The names of Headwater's own migrations, in order. */
  async function own(): Promise<string[]> {
    return (await migrationsOf('headwater')).map(({ name }) => name);
  }

  it('makes every table with a primary key, and on a database of someone’s only in its own schema', async () => {
    await migrate(database.url, { demo: false, log });
    const tables = `SELECT schemaname || '.' || tablename AS value FROM pg_tables WHERE schemaname IN ('headwater', 'public') ORDER BY 1`;
    const made = (await query(tables)) as string[];
    expect(made.filter((name) => !name.startsWith('headwater.'))).to.deep.equal([]);
    expect(made).to.include.members(['alert_history', 'alert_rules', 'api_keys', 'migrations', 'users'].map((name) => `headwater.${name}`));
    await migrate(database.url, { demo: true, log });
    const demo = ['chains', 'emissions', 'governance_proposals', 'liquidations', 'prices', 'protocols', 'tokens', 'tvl'].map(
      (name) => `public.${name}`,
    );
    expect(await query(tables)).to.deep.equal([...made, ...demo]);
    const keyless = `SELECT c.relname AS value FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('headwater'::regnamespace, 'public'::regnamespace)
      AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)`;
    expect(await query(keyless)).to.deep.equal([]);
  });

  it('two starters at once apply each migration once, and a third has nothing to do', async () => {
    const results = await Promise.all([1, 2, 3].map(() => migrate(database.url, { demo: true, log })));
    expect(results.flatMap(({ applied }) => applied).sort()).to.deep.equal(['demo/0001_market', ...(await own())]);
    expect(await migrate(database.url, { demo: true, log })).to.deep.equal({ applied: [] });
  });

  it('refuses a database that a newer version has migrated, and changes nothing in it', async () => {
    writeFileSync(join(directory, 'headwater', '9999_future.sql'), 'CREATE TABLE headwater.future (id int PRIMARY KEY)');
    await migrate(database.url, { demo: false, log, directory });
    const error = await failure(migrate(database.url, { demo: true, log }));
    expect(error).to.include({ code: 'newer_schema', reaction: 'usage' });
    expect(error.message).to.include('headwater/9999_future');
    expect(await query(`SELECT count(*)::int AS value FROM pg_tables WHERE schemaname = 'public'`)).to.deep.equal([0]);
  });

  it('leaves nothing of a migration that fails, and goes on from there once it is mended', async () => {
    const file = join(directory, 'headwater', '9000_broken.sql');
    writeFileSync(file, 'CREATE TABLE headwater.half (id int PRIMARY KEY); SELECT 1 / 0');
    const error = await failure(migrate(database.url, { demo: false, log, directory }));
    expect(error.code).to.equal('migration_failed');
    expect(error.message).to.include('headwater/9000_broken').and.include('division by zero');
    expect(await query(`SELECT to_regclass('headwater.half') AS value`)).to.deep.equal([null]);
    writeFileSync(file, 'CREATE TABLE headwater.half (id int PRIMARY KEY)');
    expect(await migrate(database.url, { demo: false, log, directory })).to.deep.equal({ applied: ['headwater/9000_broken'] });
  });

  it('names the GRANT that is missing, and that GRANT is enough', async () => {
    const role = `${database.name}_user`;
    await query(`CREATE ROLE "${role}" LOGIN PASSWORD 'x'`);
    try {
      const url = new URL(database.url);
      [url.username, url.password] = [role, 'x'];
      const error = await failure(migrate(url.toString(), { demo: false, log }));
      expect(error).to.include({ code: 'missing_privilege', reaction: 'usage' });
      const grant = /GRANT .*;/.exec(error.hint ?? '')?.[0] ?? '';
      expect(grant).to.match(/^GRANT CREATE ON DATABASE /);
      await query(grant);
      expect((await migrate(url.toString(), { demo: false, log })).applied).to.deep.equal(await own());
    } finally {
      await query(`DROP OWNED BY "${role}"`);
      await query(`DROP ROLE "${role}"`);
    }
  });
});
