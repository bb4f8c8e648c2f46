import { expect } from 'chai';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Webhook } from 'standardwebhooks';
import type { NatsConnection } from '../../pipeline/clients/nats.ts';
import type { LogEvent } from '../../pipeline/log/event-log.ts';
import { requireForeignSubject } from '../../pipeline/replay/subject-target.ts';
import { faultsOf } from '../../cli/replay/request.ts';
import type { FreshLog } from '../pipeline/log/support/fresh-log.ts';
import { eventsOf, lineOf } from '../pipeline/replay/support/replay-log.ts';
import { until } from '../support/role-context.ts';
import { freshStreamName } from '../support/servers.ts';
import { callCli } from './support/call-cli.ts';
import { replayFixture, type ReplayFixture } from './support/replay-fixture.ts';
import { runCli, startCli, type Ran } from './support/run-cli.ts';

const count = 60_000;
const secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD'];

describe('headwater replay', function () {
  this.timeout(240_000);
  let fixture: ReplayFixture;
  let connection: NatsConnection;
  let fresh: FreshLog;
  let place: ReturnType<ReplayFixture['folder']>;
  let events: readonly LogEvent[];
  let env: Record<string, string>;
  let folder: string;

  before(async () => {
    fixture = await replayFixture(count);
    ({ connection, fresh } = fixture);
    events = eventsOf(fresh.subject, count);
  });
  after(() => fixture.close());
  beforeEach(() => {
    place = fixture.folder();
    ({ path: folder, env } = place);
  });
  afterEach(() => place.remove());

  const replay = (...args: string[]): ReturnType<typeof callCli> => callCli(['replay', ...args], env);
  const linesOf = (...kept: ((event: LogEvent) => boolean)[]): string =>
    events
      .filter((event) => kept.every((keeps) => keeps(event)))
      .map(lineOf)
      .join('');

  /** Starts a replay, and kills it when the condition holds. */
  async function killedWhen(
    args: readonly string[],
    condition: () => boolean | Promise<boolean>,
    signal: NodeJS.Signals = 'SIGKILL',
  ): Promise<Ran> {
    const child = startCli(['replay', ...args], env);
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    await until(
      async () => {
        if (child.exitCode !== null) throw new Error(`it ended by itself: ${stderr}`);
        return condition();
      },
      60_000,
      'what it is to be killed at',
    );
    child.kill(signal);
    const [code, by] = await closed;
    return { code, signal: by, stdout: '', stderr };
  }

  describe('into a file', () => {
    it('has every event of the log as the log has it, and leaves nothing else behind', async () => {
      const file = join(folder, 'log.ndjson');
      const { code, stdout, stderr } = await runCli(['replay', '--from', '1', '--to-file', file], env);
      expect(code, stderr).to.equal(0);
      expect(readFileSync(file, 'utf8')).to.equal(linesOf());
      expect(stdout).to.match(/^60,000 events \([\d,]+ bytes\) replayed to .*, from sequences 1 to 60000, in/);
      expect(existsSync(`${file}.checkpoint`)).to.equal(false);
    });

    it('killed in the middle and gone on with, it has the very bytes of an undisturbed one, also compressed', async () => {
      for (const name of ['log.ndjson', 'log.ndjson.gz']) {
        const [file, whole] = [join(folder, name), join(folder, `whole.${name}`)];
        const args = ['--from', '100', '--to', '59000', '--no-ticks'];
        const done = (): number => {
          try {
            return (JSON.parse(readFileSync(`${file}.checkpoint`, 'utf8')) as { settled: { events: number } }).settled.events;
          } catch {
            return 0;
          }
        };
        await killedWhen([...args, '--to-file', file, '--rate', '12000'], () => done() > 5_000);
        // What was written behind the checkpoint must not stay.
        writeFileSync(file, 'torn', { flag: 'a' });
        const resumed = await replay(...args, '--to-file', file, '--resume', '--json');
        expect(resumed.code, resumed.stderr).to.equal(0);
        const undisturbed = await replay(...args, '--to-file', whole, '--json');
        const { events: number } = JSON.parse(resumed.stdout) as { events: number };
        expect(number).to.equal((JSON.parse(undisturbed.stdout) as { events: number }).events);
        const [got, wanted] = [readFileSync(file), readFileSync(whole)];
        expect(got.equals(wanted)).to.equal(true);
        const text = (name.endsWith('.gz') ? gunzipSync(got) : got).toString('utf8');
        expect(text).to.equal(linesOf(({ seq, subject }) => seq >= 100 && seq <= 59_000 && !subject.endsWith('_tick')));
      }
    });

    it('stopped by Ctrl-C says how to go on, and ends with 130', async () => {
      const file = join(folder, 'log.ndjson');
      const begun = (): boolean => existsSync(file) && readFileSync(file).length > 0;
      const { code, stderr } = await killedWhen(['--from', '1', '--to-file', file, '--rate', '1000'], begun, 'SIGINT');
      expect(code).to.equal(130);
      expect(stderr).to.match(/the same command with --resume goes on at sequence \d+/);
      expect((await replay('--from', '1', '--to-file', file)).stderr).to.include('--resume goes on with it');
      expect((await replay('--from', '1', '--to-file', file, '--resume')).code).to.equal(0);
      expect(readFileSync(file, 'utf8')).to.equal(linesOf());
    });

    it('goes on with nothing but the same replay', async () => {
      const file = join(folder, 'log.ndjson');
      const args = ['--from', '1', '--to-file', file, '--tables', 'prices'];
      await killedWhen([...args, '--rate', '50'], async () => {
        if (!existsSync(`${file}.checkpoint`)) return false;
        const meanwhile = await replay(...args, '--resume');
        expect([meanwhile.code, meanwhile.stderr])
          .to.deep.equal([3, meanwhile.stderr])
          .and.to.satisfy(() => meanwhile.stderr.includes('is at work'));
        return true;
      });
      const { code, stderr } = await replay('--from', '2', '--to-file', file, '--tables', 'orders', '--resume');
      expect(code).to.equal(2);
      expect(stderr).to.include('--tables was prices, and is orders').and.to.include('--from was 1, and is 2');
      expect((await replay('--from', '1', '--to-file', join(folder, 'other'), '--resume')).stderr).to.include('no replay was interrupted');
    });
  });

  it('takes filters together; what lacks the value that is asked for comes too, and is told', async () => {
    const file = join(folder, 'where.ndjson');
    const where = 'price > 20000.5 AND chain IN ("base", "polygon")';
    const args = ['--since', '2026-11-22T00:00:10Z', '--to', '50000', '--tables', 'prices', '--ops', 'update,delete', '--where', where];
    const { stderr } = await replay(...args, '--to-file', file);
    const selected = ({ seq, subject, data }: LogEvent): boolean => {
      const { op, after = {} } = JSON.parse(Buffer.from(data).toString('utf8')) as { op?: string; after?: Record<string, unknown> };
      if (seq < 10_000 || seq > 50_000 || !subject.includes('.public.prices.')) return false;
      return op === 'delete' || (op === 'update' && Number(after['price']) > 20_000.5 && /base|polygon/.test(String(after['chain'])));
    };
    expect(readFileSync(file, 'utf8')).to.equal(linesOf(selected));
    expect(stderr).to.match(/[\d,]+ events are in it although they lack a value that --where asks for/);
  });

  it('--dry-run counts, and writes nothing', async () => {
    const { stdout } = await replay('--from', 'oldest', '--tables', 'prices', '--ops', 'delete', '--dry-run', '--json');
    const wanted = events.filter(({ subject }) => subject.endsWith('.prices.delete')).length;
    const said = JSON.parse(stdout) as { done: boolean; events: number; subjects: object };
    expect(said)
      .to.include({ done: true, events: wanted })
      .and.to.deep.include({ subjects: { [`${fresh.subject}.public.prices.delete`]: wanted } });
    expect(existsSync(join(folder, 'replay'))).to.equal(false);
  });

  describe('into a subject', () => {
    interface Stored {
      readonly seq: number;
      readonly subject: string;
      readonly text: string;
    }

    async function stored(stream: string): Promise<readonly Stored[]> {
      const { state } = await fresh.jsm.streams.info(stream);
      const found: Stored[] = [];
      for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
        const message = (await fresh.jsm.streams.getMessage(stream, { seq }))!;
        found.push({ seq: Number(message.header.get('Headwater-Seq')), subject: message.subject, text: message.string() });
      }
      return found;
    }

    it('that a stream keeps: killed in the middle, each event is in it once, though the stream forgot its message ids', async () => {
      const name = freshStreamName();
      await fresh.jsm.streams.add({ name, subjects: [`${name}.>`], storage: 'memory', duplicate_window: 100_000_000 } as never);
      const args = ['--from', '1', '--to', '9000', '--tables', 'prices', '--to-subject', `${name}.>`];
      await killedWhen([...args, '--rate', '2000'], async () => (await fresh.jsm.streams.info(name)).state.last_seq > 2_500);
      const { code, stderr, stdout } = await replay(...args, '--resume', '--json');
      expect(code, stderr).to.equal(0);
      const wanted = events.filter(({ seq, subject }) => seq <= 9_000 && subject.includes('.prices.') && !subject.includes('_schema'));
      expect((JSON.parse(stdout) as { events: number }).events).to.equal(wanted.length);
      expect(await stored(name)).to.deep.equal(
        wanted.map(({ seq, subject, data }) => ({
          seq,
          subject: subject.replace(fresh.subject, name),
          text: Buffer.from(data).toString('utf8'),
        })),
      );
      await fresh.jsm.streams.delete(name);
    });

    it('that is never acknowledged is given up after --give-up', async () => {
      const name = freshStreamName();
      await fresh.jsm.streams.add({ name, subjects: [name], storage: 'memory', no_ack: true } as never);
      const begun = performance.now();
      const { code, stderr } = await replay('--from', '1', '--to', '5', '--to-subject', name, '--give-up', '300ms');
      expect(performance.now() - begun).to.be.lessThan(4_000);
      expect(code, stderr).to.equal(1);
      expect(stderr)
        .to.match(/could not be published to .*timeout/)
        .and.to.include('or raise --give-up; then the same command with --resume');
      await fresh.jsm.streams.delete(name);
    });

    it('that nobody keeps reaches who subscribes', async () => {
      const subject = freshStreamName();
      const got: number[] = [];
      const subscription = connection.subscribe(subject, {
        callback: (_, message) => void got.push(Number(message.headers?.get('Headwater-Seq'))),
      });
      await connection.flush();
      const { code, stderr } = await replay('--from', '5', '--to', '3000', '--to-subject', subject);
      expect(code).to.equal(0);
      expect(stderr).to.include('no stream listens');
      await until(() => got.length === 2_996);
      expect(got).to.deep.equal(Array.from({ length: 2_996 }, (_, i) => i + 5));
      subscription.unsubscribe();
    });

    it('of a log, of Headwater or of NATS is refused with 2, before anything is sent', async () => {
      const { last_seq: before } = (await fresh.jsm.streams.info(fresh.subject)).state;
      expect((await replay('--from', '1', '--to-subject', `${fresh.subject}.public.prices.insert`)).code).to.equal(2);
      for (const subject of [
        `${fresh.subject}.>`,
        fresh.subject,
        'dl.cache',
        '$KV.HEADWATER.x',
        '_INBOX.x',
        '*.x',
        'a b',
        '>',
        '',
        'a..b',
        'a.>.b',
      ])
        expect(() => requireForeignSubject(subject, [fresh.subject, 'dl']), subject)
          .to.throw()
          .with.property('reaction', 'usage');
      for (const subject of ['replay', 'replay.>', `${fresh.subject}x.y`]) requireForeignSubject(subject, [fresh.subject, 'dl']);
      // Another first token would be found only by asking whose stream it is.
      env = { ...env, HEADWATER_SUBJECT: 'other' };
      const { code, stderr } = await replay('--from', '1', '--to-subject', `${fresh.subject}.x`);
      expect([code, stderr])
        .to.deep.equal([2, stderr])
        .and.to.satisfy(() => stderr.includes('is a log of Headwater'));
      expect((await fresh.jsm.streams.info(fresh.subject)).state.last_seq).to.equal(before);
    });
  });

  describe('into an HTTP endpoint', () => {
    interface Call {
      readonly headers: IncomingHttpHeaders;
      readonly body: string;
    }

    let server: Server;
    let calls: Call[];
    let url: string;
    /** What the nth call is answered with. */
    let answer: (n: number) => number | 'never';

    beforeEach(async () => {
      calls = [];
      answer = () => 204;
      server = createServer((request, response) => {
        const chunks: Buffer[] = [];
        request.on('data', (chunk: Buffer) => chunks.push(chunk));
        request.on('end', () => {
          calls.push({ headers: request.headers, body: Buffer.concat(chunks).toString('utf8') });
          const status = answer(calls.length);
          if (status !== 'never')
            response.writeHead(status, status === 503 ? { 'retry-after': '0' } : {}).end(status === 400 ? 'no such thing' : '');
        });
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/in`;
    });
    afterEach(async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    });

    interface Body {
      readonly type: string;
      readonly data: {
        readonly first: number;
        readonly last: number;
        readonly count: number;
        readonly events: readonly { seq: number; event: object }[];
      };
    }
    const bodyOf = ({ body }: Call): Body => JSON.parse(body) as Body;
    const prices = (): readonly LogEvent[] =>
      events.filter(({ seq, subject }) => seq <= 4_000 && /\.public\.prices\./.test(subject) && !subject.includes('_schema'));

    it('sends signed batches in order, and the same again until it is taken', async () => {
      writeFileSync(join(folder, 'secret'), `# old and new\n${secrets.join('\n')}\n`);
      answer = (n) => (n === 2 || n === 3 ? 503 : 200);
      const args = [
        '--from',
        '1',
        '--to',
        '4000',
        '--tables',
        'prices',
        '--to-url',
        url,
        '--batch',
        '300',
        '--secret-file',
        join(folder, 'secret'),
      ];
      const { code, stderr, stdout } = await replay(...args);
      expect(code, stderr).to.equal(0);
      expect(stderr).to.include('not taken (503), trying again');
      const sent = calls.filter((_, i) => i !== 1 && i !== 2);
      expect(sent.flatMap((call) => bodyOf(call).data.events.map(({ seq }) => seq))).to.deep.equal(prices().map(({ seq }) => seq));
      expect(stdout).to.include(`${prices().length.toLocaleString('en-US')} events`);
      expect(new Set(calls.slice(1, 4).map(({ body }) => body)).size).to.equal(1);
      expect(new Set(calls.slice(1, 4).map(({ headers }) => headers['idempotency-key'])).size).to.equal(1);
      expect(new Set(sent.map(({ headers }) => headers['webhook-id'])).size).to.equal(sent.length);
      for (const { headers, body } of calls)
        for (const secret of secrets) expect(() => new Webhook(secret).verify(body, headers as Record<string, string>)).to.not.throw();
      const text = Buffer.from(prices()[0]!.data).toString('utf8');
      expect(calls[0]!.body).to.include(`"events":[{"seq":${prices()[0]!.seq},"event":${text}}`);
    });

    it('killed while a batch is on its way, sends that very batch again under its key, and no other', async () => {
      answer = (n) => (n === 4 ? 'never' : 200);
      const args = ['--from', '1', '--to', '4000', '--tables', 'prices', '--to-url', url, '--batch', '300'];
      await killedWhen(args, () => calls.length === 4);
      const { code, stderr } = await replay(...args, '--resume', '--rate', '100000');
      expect(code, stderr).to.equal(0);
      const keys = calls.map(({ headers }) => headers['idempotency-key']);
      const bodies = new Map(calls.map((call, i) => [keys[i], call.body]));
      // What was acknowledged within the last second before the kill may come again: always with the key and the bytes that it had.
      for (const [i, call] of calls.entries()) expect(bodies.get(keys[i])).to.equal(call.body);
      const distinct = [...bodies.values()].flatMap((body) => bodyOf({ headers: {}, body }).data.events.map(({ seq }) => seq));
      expect(distinct).to.deep.equal(prices().map(({ seq }) => seq));
    });

    it('gives up at once when it is told that the batch is wrong, and can go on', async () => {
      answer = (n) => (n === 2 ? 400 : 200);
      const args = ['--from', '1', '--to', '4000', '--tables', 'prices', '--to-url', url, '--batch', '300'];
      const { code, stderr } = await replay(...args);
      expect(code).to.equal(1);
      expect(stderr).to.include('400 no such thing').and.to.include('--resume');
      expect((await replay(...args, '--resume')).code).to.equal(0);
      expect(new Set(calls.map(({ body }) => body)).size).to.equal(calls.length - 1);
    });
  });

  it('tells all wrong arguments at once, with what to do', async () => {
    const { code, stderr } = await replay('--from', '0', '--since', 'now', '--ops', 'upsert', '--rate', 'fast', '--key', '');
    expect(code).to.equal(2);
    for (const part of ['--from must be', '--since must be', '--ops must be of insert', '--rate must be', '--key must be', 'replay --help'])
      expect(stderr).to.include(part);
    const processor = faultsOf({ from: 7, toProcessor: 'cache', tables: ['prices'], ticks: true });
    expect(processor.join()).to.include('leave out --tables').and.to.include('--from oldest');
    expect(faultsOf({ from: 'oldest', toProcessor: 'cache', ticks: true })).to.deep.equal([]);
    const together = await replay(
      '--where',
      'a > 1',
      '--to-file',
      'x',
      '--to-url',
      'http://x',
      '--secret-file',
      'y',
      '--resume',
      '--overwrite',
    );
    expect(together.code).to.equal(2);
    for (const part of ['say where to begin', 'give one target', '--where needs --tables', 'give one of them'])
      expect(together.stderr).to.include(part);
  });

  it('knows what the log does not have', async () => {
    const typo = await replay('--from', '1', '--tables', 'price', '--dry-run');
    expect([typo.code, typo.stderr])
      .to.deep.equal([2, typo.stderr])
      .and.to.satisfy(() => typo.stderr.includes('did you mean public.prices?'));
    const column = await replay('--from', '1', '--tables', 'prices', '--where', 'prize > 1', '--dry-run');
    expect(column.code).to.equal(2);
    expect(column.stderr).to.include('did you mean price?');
    const ahead = await replay('--from', '1', '--to', String(count + 1), '--dry-run');
    expect([ahead.code, ahead.stderr])
      .to.deep.equal([2, ahead.stderr])
      .and.to.satisfy(() => ahead.stderr.includes(`the log ends at sequence ${count}`));
  });
});
