import { chmodSync, chownSync, copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { provideProgram } from '../../deploy/local/install.ts';
import { cacheDirectory } from '../../deploy/local/paths.ts';
import { startLocalServices } from '../../deploy/local/services.ts';
import { connectPostgres } from '../../pipeline/clients/postgres.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { runTestProgram } from '../support/programs.ts';
import { removeData, temporaryDirectory } from '../support/servers.ts';

const log = silentLogger();
/** An account without rights, home or shell; by number, since it has no fixed name. */
const nobody = 65_534;

describe('local services and accounts', function () {
  let home: string;
  before(function () {
    if (process.getuid?.() !== 0) this.skip();
  });
  beforeEach(() => (home = temporaryDirectory()));
  afterEach(() => removeData(home));

  it('an ordinary user starts and stops them with programs of its own cache, and another user’s data is refused', async () => {
    const nats = await provideProgram('nats', { cache: cacheDirectory(home), install: true, log, signal: new AbortController().signal });
    const bin = join(home, 'cache/headwater/nats/bin');
    mkdirSync(bin, { recursive: true });
    copyFileSync(nats.path, join(bin, 'nats-server'));
    chmodSync(join(bin, 'nats-server'), 0o755);
    const data = join(home, 'data');
    mkdirSync(data);
    for (const path of [data, join(home, 'cache/headwater')]) chownSync(path, nobody, nobody);

    const program = runTestProgram('run-services', [data], {
      uid: nobody,
      gid: nobody,
      env: { XDG_CACHE_HOME: join(home, 'cache'), HOME: '/nonexistent' },
    });
    const { databaseUrl } = (await program.nextLine()) as { databaseUrl: string };
    const client = await connectPostgres(databaseUrl, 'test', log);
    const { rows } = await client.query<{ directory: string }>(
      `SELECT setting AS directory FROM pg_settings WHERE name = 'data_directory'`,
    );
    await client.end();
    expect(rows).to.deep.equal([{ directory: join(data, 'postgres') }]);
    program.child.stdin?.end();
    expect(await program.nextLine()).to.deep.equal({ stopped: true });
    expect(await program.ended, program.stderr()).to.equal(0);

    const error = await startLocalServices({ data, need: { postgres: true, nats: false, redis: false }, install: false, log }).catch(
      (fault: unknown) => fault,
    );
    expect(error).to.be.instanceOf(HeadwaterError).with.property('code', 'data_of_another_user');
  });

  it('root keeps PostgreSQL’s data where its account can reach it, when the data directory is private', async () => {
    chmodSync(home, 0o700);
    const services = await startLocalServices({ data: home, need: { postgres: true, nats: false, redis: false }, install: true, log });
    try {
      const client = await connectPostgres(services.databaseUrl!, 'test', log);
      const { rows } = await client.query<{ directory: string }>(
        `SELECT setting AS directory FROM pg_settings WHERE name = 'data_directory'`,
      );
      await client.end();
      expect(rows[0]?.directory).to.match(/^\/var\/lib\/headwater\/[0-9a-f]{12}\/postgres$/);
    } finally {
      await services.stop();
    }
  });
});
