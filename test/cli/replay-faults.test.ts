import { expect } from 'chai';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { filledLog, nthEvent } from '../pipeline/replay/support/replay-log.ts';
import { until } from '../support/role-context.ts';
import { callCli } from './support/call-cli.ts';
import { replayFixture, type ReplayFixture } from './support/replay-fixture.ts';

const count = 20_000;

describe('headwater replay, where it could do harm', function () {
  this.timeout(60_000);
  let fixture: ReplayFixture;
  let place: ReturnType<ReplayFixture['folder']>;
  let env: Record<string, string>;
  let folder: string;

  before(async () => {
    fixture = await replayFixture(count);
  });
  after(() => fixture.close());
  beforeEach(() => {
    place = fixture.folder();
    ({ path: folder, env } = place);
  });
  afterEach(() => place.remove());

  const replay = (args: readonly string[], signal?: AbortSignal): ReturnType<typeof callCli> =>
    callCli(['replay', '--from', '1', ...args], env, signal ? { signal } : {});

  /** Stops a replay as soon as its checkpoint tells of events. */
  async function stoppedEarly(args: readonly string[], checkpoint: string): Promise<void> {
    const stopping = new AbortController();
    const running = replay(args, stopping.signal);
    const settled = (): number =>
      existsSync(checkpoint) ? (JSON.parse(readFileSync(checkpoint, 'utf8')) as { settled: { events: number } }).settled.events : 0;
    await until(() => settled() > 0, 20_000);
    stopping.abort(new Error('stopped'));
    expect((await running).code).to.equal(130);
  }

  it('never keeps its checkpoint in the file that it writes, or in the one with the secrets', async () => {
    const file = join(folder, 'out');
    for (const checkpoint of [file, join(folder, 'x', '..', 'out')]) {
      const { code, stderr } = await replay(['--to', '50', '--to-file', file, '--checkpoint', checkpoint]);
      expect([code, existsSync(file)], stderr).to.deep.equal([2, false]);
      expect(stderr).to.include('--checkpoint').and.to.include('--to-file');
    }
    // What a checkpoint is written as before it takes its name.
    expect((await replay(['--to', '50', '--to-file', `${file}.new`, '--checkpoint', file])).code).to.equal(2);
    const secret = ['--to-url', 'http://127.0.0.1:1/', '--secret-file', `${file}.new`];
    expect((await replay([...secret, '--checkpoint', file])).stderr).to.include('--secret-file');
    expect((await replay(['--to', '50', '--to-file', file, '--checkpoint', `${file}.mark`])).code).to.equal(0);
    expect(readFileSync(file, 'utf8').split('\n').length).to.equal(51);
  });

  it('writes to nothing that it could not go on with, and makes no directory for a slip', async () => {
    const nowhere = join(folder, 'slip', 'out');
    const refused: Readonly<Record<string, RegExp>> = {
      '-': /standard output.*\.\/-.*tail --from <seq> --json/,
      '/dev/null': /is a pipe or a device.*name a file/,
      [folder]: /is a directory.*name a file/,
      [nowhere]: /there is no directory .*slip; make it first/,
    };
    for (const [target, told] of Object.entries(refused)) {
      const { code, stderr } = await replay(['--to', '5', '--to-file', target, '--overwrite']);
      expect(code, stderr).to.equal(2);
      expect(stderr).to.match(told);
    }
    const both = await replay(['--to', '5', '--to-file', nowhere, '--checkpoint', join(folder, 'slap', 'mark')]);
    expect(both.stderr).to.include('--to-file').and.to.include('--checkpoint');
    expect([existsSync('-'), readdirSync(folder)]).to.deep.equal([false, []]);
  });

  it('goes on with no file that is gone', async () => {
    const file = join(folder, 'out');
    const args = ['--to-file', file, '--checkpoint', join(folder, 'mark')];
    await stoppedEarly([...args, '--rate', '2000'], join(folder, 'mark'));
    rmSync(file);
    const { code, stderr } = await replay([...args, '--resume']);
    expect(code, stderr).to.equal(3);
    expect(stderr).to.include('out is gone').and.to.include('begin anew with --overwrite');
  });

  it('takes a secret file or a checkpoint that cannot be read for a wrong argument', async () => {
    const secret = await replay(['--to', '5', '--to-url', 'http://127.0.0.1:1/', '--secret-file', join(folder, 'none')]);
    expect(secret.code, secret.stderr).to.equal(2);
    expect(secret.stderr)
      .to.match(/the secret file .*none cannot be read: ENOENT/)
      .and.to.include('next: --secret-file names a file');
    mkdirSync(join(folder, 'out.checkpoint'));
    const checkpoint = await replay(['--to', '5', '--to-file', join(folder, 'out')]);
    expect(checkpoint.code, checkpoint.stderr).to.equal(2);
    expect(checkpoint.stderr)
      .to.match(/out\.checkpoint.* cannot be read: EISDIR/)
      .and.to.include('name another file with --checkpoint');
  });

  it('counts without touching the file that is there', async () => {
    const file = join(folder, 'out');
    writeFileSync(file, 'mine');
    const { code, stdout } = await replay(['--to-file', file, '--dry-run']);
    expect(code).to.equal(0);
    expect(stdout).to.include('20,000 events');
    expect(readFileSync(file, 'utf8')).to.equal('mine');
    const none = await callCli(['replay', '--since', '2099-01-01T00:00:00Z', '--dry-run'], env);
    expect(none.stdout).to.match(/^0 events .* as no sequence of the log is in that range/);
  });

  describe('with an endpoint whose URL holds a secret', () => {
    let server: Server;
    let url: string;
    /** Undefined: it never answers. */
    let status: number | undefined;

    beforeEach(async () => {
      status = 200;
      server = createServer((request, response) => {
        request.resume().on('end', () => {
          if (status !== undefined) response.writeHead(status).end(status === 200 ? '' : `cannot POST ${request.url}`);
        });
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/in?token=s3cr3t`;
    });
    afterEach(async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    });

    it('tells where the events went, and not the secret', async () => {
      const mistyped = await replay(['--to', '5', '--to-url', url.replace('http', 'htp')]);
      expect([mistyped.code, mistyped.stderr.includes('--to-url must be an http:// or https:// URL')]).to.deep.equal([2, true]);
      expect(mistyped.stderr).to.not.include('s3cr3t');
      const { code, stdout, stderr } = await replay(['--to', '5', '--to-url', url]);
      expect(code, stderr).to.equal(0);
      expect(stdout).to.include(url.replace(/\?.*/, ''));
      expect(stdout + stderr).to.not.include('s3cr3t');
    });

    it('waits for an answer no longer than --give-up says, and does not tell of words that were not said', async () => {
      status = undefined;
      const begun = performance.now();
      const args = ['--to', '5', '--to-url', url];
      const { code, stderr } = await replay([...args, '--give-up', '700ms']);
      expect(performance.now() - begun).to.be.lessThan(5_000);
      expect(code).to.equal(1);
      expect(stderr)
        .to.match(/no answer of the receiver to sequences 1 to 5: not done within 0\.7 s/)
        .and.match(/next: .*receiver runs and answers, or raise --give-up; then the same command with --resume goes on/)
        .and.not.include('it says');
      status = 503;
      expect((await replay([...args, '--give-up', '700ms', '--resume'])).stderr).to.match(
        /did not take .*: 503.*\n.*correct what it says, or raise/,
      );
      status = 200;
      expect((await replay([...args, '--give-up', '0', '--resume'])).code).to.equal(0);
    });

    it('tells what is not the same replay, and what the receiver said, without it', async () => {
      status = 400;
      const checkpoint = ['--checkpoint', join(folder, 'mark')];
      const failed = await replay(['--to', '5', '--to-url', url, ...checkpoint]);
      expect(failed.code).to.equal(1);
      expect(failed.stderr).to.include('400 cannot POST /in');
      const other = await replay(['--to', '5', '--to-url', url.replace('s3cr3t', 'n3w0ne'), ...checkpoint, '--resume']);
      expect(other.code).to.equal(2);
      expect(other.stderr).to.include('--to-url');
      for (const { stdout, stderr } of [failed, other]) expect(stdout + stderr).to.not.match(/s3cr3t|n3w0ne/);
      const elsewhere = await replay(['--to', '5', '--to-url', 'http://127.0.0.1:1/other?token=n3w0ne', ...checkpoint, '--resume']);
      expect(elsewhere.stderr)
        .to.include('and is http://127.0.0.1:1/other')
        .and.to.not.match(/s3cr3t|n3w0ne/);
    });
  });

  it('counts the events that it could not judge once, over all of its runs', async () => {
    const file = join(folder, 'out');
    const args = ['--tables', 'prices', '--where', 'price > 5', '--json'];
    await stoppedEarly([...args, '--to-file', file, '--rate', '2000'], `${file}.checkpoint`);
    const resumed = await replay([...args, '--to-file', file, '--resume']);
    const undisturbed = await replay([...args, '--to-file', join(folder, 'whole')]);
    const said = ({ stdout }: { stdout: string }): unknown => (JSON.parse(stdout) as { undecided: number }).undecided;
    expect(said(undisturbed)).to.be.greaterThan(1_000);
    expect(said(resumed)).to.equal(said(undisturbed));
  });

  it('leaves the checkpoint of a stopped one as it was when another cannot begin', async () => {
    const args = ['--tables', 'prices', '--to-file', join(folder, 'out')];
    const checkpoint = join(folder, 'out.checkpoint');
    await stoppedEarly([...args, '--rate', '2000'], checkpoint);
    const kept = readFileSync(checkpoint, 'utf8');
    writeFileSync(join(folder, 'secret'), 'none');
    const cannot = ['--to-url', 'http://127.0.0.1:1/', '--secret-file', join(folder, 'secret'), '--checkpoint', checkpoint, '--overwrite'];
    expect((await replay(cannot)).stderr).to.include('no webhook secret');
    expect(readFileSync(checkpoint, 'utf8')).to.equal(kept);
    expect((await replay([...args, '--resume'])).code).to.equal(0);
    expect(readdirSync(folder).sort()).to.deep.equal(['out', 'secret']);
  });

  it('ends with 2 and says what to do when the log is trimmed meanwhile', async () => {
    const small = await filledLog(fixture.connection, count, nthEvent);
    env = { ...env, HEADWATER_STREAM: small.subject, HEADWATER_SUBJECT: small.subject };
    const file = join(folder, 'out');
    const running = replay(['--to-file', file, '--rate', '6000']);
    await until(() => existsSync(`${file}.checkpoint`), 20_000);
    await small.trim(count - 10);
    const { code, stderr } = await running;
    expect(code, stderr).to.equal(2);
    expect(stderr).to.include('trimmed').and.to.include('--from oldest').and.to.not.include('rebuild');
    await small.remove();
    small.log.close();
  });
});
