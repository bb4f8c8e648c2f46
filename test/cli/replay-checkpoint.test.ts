import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import { until } from '../support/role-context.ts';
import { freshStreamName } from '../support/servers.ts';
import { callCli } from './support/call-cli.ts';
import { replayFixture, type ReplayFixture } from './support/replay-fixture.ts';

const count = 4_000;

describe('headwater replay, what an interrupted one leaves', function () {
  this.timeout(60_000);
  let fixture: ReplayFixture;
  let place: ReturnType<ReplayFixture['folder']>;
  let server: Server;
  /** First sequences of the batches that the endpoint has got. */
  let batches: number[];
  let mark: string;

  before(async () => {
    fixture = await replayFixture(count);
    server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const { data } = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { data: { first: number } };
        batches.push(data.first);
        response.end();
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  after(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
    await fixture.close();
  });
  beforeEach(() => {
    place = fixture.folder();
    mark = join(place.path, 'mark');
    batches = [];
  });
  afterEach(() => place.remove());

  const replay = (...args: string[]): ReturnType<typeof callCli> => callCli(['replay', ...args], place.env);
  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/in`;

  /** The checkpoint's path, when there is one: beside the file, or in the data directory. */
  function checkpoint(): string | undefined {
    if (existsSync(mark)) return mark;
    const beside = join(place.path, 'out.checkpoint');
    if (existsSync(beside)) return beside;
    const folder = join(place.path, 'replay');
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.json')) : [];
    return names[0] === undefined ? undefined : join(folder, names[0]);
  }

  /** Begins, and is stopped long before its end. */
  async function interrupted(...args: string[]): Promise<void> {
    const stopping = new AbortController();
    const running = callCli(['replay', ...args, '--rate', '50'], place.env, { signal: stopping.signal });
    await until(() => checkpoint() !== undefined, 20_000);
    stopping.abort(new Error('stopped'));
    expect((await running).code).to.equal(130);
  }

  for (const kind of ['--to-file', '--to-subject', '--to-url'] as const) {
    it(`is kept when another range is asked for, until it is gone on with or forgotten: ${kind}`, async () => {
      const target = [kind, { '--to-file': join(place.path, 'out'), '--to-subject': freshStreamName(), '--to-url': url() }[kind]];
      const [one, other] = [
        ['--from', '1', '--to', '900', ...target],
        ['--from', '1500', '--to', '1510', ...target],
      ];
      await interrupted(...one);
      const kept = readFileSync(checkpoint()!, 'utf8');
      for (const again of [one, other]) {
        const { code, stderr } = await replay(...again);
        expect(code, stderr).to.equal(3);
        expect(stderr).to.include('sequences 1 to 900').and.to.include('--resume').and.to.include('--overwrite');
        if (again === other) expect(stderr).to.include('--from was 1, and is 1500').and.to.include('--to was 900, and is 1510');
      }
      expect(batches.every((first) => first < 900)).to.equal(true);
      expect(readFileSync(checkpoint()!, 'utf8')).to.equal(kept);
      const resumed = await replay(...one, '--resume', '--json');
      expect(resumed.code, resumed.stderr).to.equal(0);
      expect((JSON.parse(resumed.stdout) as { events: number }).events).to.equal(900);

      if (kind === '--to-file') await replay('--from', '1', '--to', '1', ...target, '--overwrite');
      await interrupted(...one, '--overwrite');
      const anew = await replay(...other, '--overwrite', '--json');
      expect(anew.code, anew.stderr).to.equal(0);
      expect((JSON.parse(anew.stdout) as { events: number }).events).to.equal(11);
      const gone = await replay(...one, '--resume');
      expect([gone.code, gone.stderr])
        .to.deep.equal([2, gone.stderr])
        .and.to.satisfy(() => gone.stderr.includes('no replay was interrupted'));
    });
  }

  it('is gone on with by the same beginning and end only', async () => {
    const target = ['--to-url', url()];
    const times = ['2026-11-22T00:00:00.1Z', '2026-11-22T00:00:01Z', '2026-11-22T00:00:02Z'] as const;
    const given: readonly (readonly [was: readonly string[], others: readonly (readonly [string[], string])[]])[] = [
      [
        ['--from', '500', '--to', '1000'],
        [
          [['--from', 'oldest', '--to', '1000'], '--from was 500, and is oldest'],
          [['--from', '500'], '--to was 1000, and is not given'],
          [['--since', times[1], '--to', '1000'], `--since was not given, and is ${times[1]}`],
          [['--from', '500', '--to', times[1]], `--to was 1000, and is ${times[1]}`],
        ],
      ],
      [
        ['--since', times[0], '--to', times[1]],
        [
          [['--since', times[1], '--to', times[1]], `--since was ${times[0]}, and is ${times[1]}`],
          [['--since', times[0], '--to', times[2]], `--to was ${times[1]}, and is ${times[2]}`],
          [['--since', times[0]], `--to was ${times[1]}, and is not given`],
        ],
      ],
      [['--from', 'oldest'], [[['--from', 'oldest', '--to', String(count)], `--to was not given, and is ${count}`]]],
    ];
    for (const [was, others] of given) {
      await interrupted(...was, ...target);
      for (const [other, told] of others) {
        const { code, stderr } = await replay(...other, ...target, '--resume');
        expect(code, `${other.join(' ')}: ${stderr}`).to.equal(2);
        expect(stderr).to.include(told);
      }
      const { code, stderr } = await replay(...was, ...target, '--resume');
      expect(code, stderr).to.equal(0);
    }
  });

  it('is gone on with by the same filters only, also where a list has an item with a comma', async () => {
    const was = ['--from', '1', '--to-url', url(), '--key', 'base:0x4,base:0x8'];
    await interrupted(...was);
    const two = await replay('--from', '1', '--to-url', url(), '--key', 'base:0x4', '--key', 'base:0x8', '--resume');
    expect(two.code, two.stderr).to.equal(2);
    expect(two.stderr).to.include('--key was ["base:0x4,base:0x8"], and is base:0x4,base:0x8');
    const fewer = await replay('--from', '1', '--to-url', url(), '--key', 'base:0x4', '--resume');
    expect(fewer.code, fewer.stderr).to.equal(2);
    expect(fewer.stderr).to.include('no replay was interrupted').and.to.include('--key was ["base:0x4,base:0x8"], and is base:0x4');
    expect((await replay(...was, '--resume')).code).to.equal(0);

    await interrupted(...was, '--checkpoint', mark);
    const other = await replay(...was, '--no-ticks', '--checkpoint', mark, '--resume');
    expect([other.code, other.stderr])
      .to.deep.equal([2, other.stderr])
      .and.to.satisfy(() => other.stderr.includes('--no-ticks was not given, and is true'));
  });

  /** A checkpoint as it was before the beginning and the end were kept in it, where it was. */
  function writeEarlier(): string {
    const stream = fixture.fresh.subject;
    const what = { '--tables': 'prices,orders', '--to-url': url() };
    const name = createHash('sha256')
      .update(JSON.stringify([stream, what]))
      .digest('hex')
      .slice(0, 16);
    mkdirSync(join(place.path, 'replay'));
    const path = join(place.path, 'replay', `${name}.json`);
    const holder = { host: 'elsewhere', pid: 1, incarnation: 'x' };
    const settled = { through: 700, events: 600, bytes: 60_000, state: { batch: 100 } };
    const range = { first: 1, last: 900 };
    writeFileSync(path, JSON.stringify({ version: 1, run: 'r', stream, epoch: 'e', holder, what, range, next: 701, settled }));
    return path;
  }

  it('of an earlier version is told as such, and stays until it is forgotten', async () => {
    const path = writeEarlier();
    const before = readFileSync(path, 'utf8');
    const args = ['--from', '1', '--to', '900', '--tables', 'prices,orders', '--to-url', url()];
    for (const how of [['--resume'], []]) {
      const { code, stderr } = await replay(...args, ...how);
      expect(code, stderr).to.equal(3);
      expect(stderr).to.include('earlier version').and.to.include('701').and.to.include('--overwrite');
    }
    expect(readFileSync(path, 'utf8')).to.equal(before);
    expect((await replay(...args, '--overwrite')).code).to.equal(0);
    expect(checkpoint()).to.equal(undefined);
  });

  it('that this version cannot read is told, and never overwritten', async () => {
    const args = ['--from', '1', '--to-url', url(), '--checkpoint', mark];
    const whole = JSON.parse(readFileSync(writeEarlier(), 'utf8')) as object;
    const faulty = [{ version: 3 }, { ...whole, version: 2, what: undefined }, { ...whole, version: 2, what: { '--key': [1] } }, 7];
    for (const content of faulty) {
      const text = JSON.stringify(content);
      writeFileSync(mark, text);
      for (const how of [['--resume'], ['--overwrite'], []]) {
        const { code, stderr } = await replay(...args, ...how);
        expect(code, `${text}: ${stderr}`).to.equal(2);
        expect(stderr).to.include(content === faulty[0] ? 'later version' : 'is no checkpoint');
      }
      expect(readFileSync(mark, 'utf8')).to.equal(text);
    }
  });
});
