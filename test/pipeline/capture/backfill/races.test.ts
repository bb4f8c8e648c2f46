import { once } from 'node:events';
import { expect } from 'chai';
import type { PgClient } from '../../../../pipeline/clients/postgres.ts';
import { startCli } from '../../../cli/support/run-cli.ts';
import { operatorOf } from '../support/backfills.ts';
import { captureFixture, type CaptureFixture, type RunningCapture } from '../support/fixture.ts';
import { Random } from '../support/random.ts';
import { expectWellFormed, fold, sortedRows, type StoredEvent } from '../support/stored-events.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

const smallChunks = { HEADWATER_BACKFILL_CHUNK: '50' };

/** A table, and random changes of it. Keys collide often, so that rows are changed, moved and made anew all the time. */
interface Subject {
  readonly name: string;
  readonly setUp: readonly string[];
  /** One row, as SQL values of the columns of the key. */
  key(random: Random): string;
  readonly columns: readonly string[];
  /** Rows by which the table begins: a SELECT of key and value. */
  readonly rows: string;
}

/** Large values stay outside the row, and are not sent again when another column changes. */
function outside(table: string): string {
  return `ALTER TABLE ${table} ALTER big SET STORAGE EXTERNAL`;
}

const words = ['a', 'B', 'b', 'é', 'z', '_', "o''x", 'ä', 'Z', 'aa'];

const bySeveral: Subject = {
  name: 'public.by_several',
  setUp: ['CREATE TABLE by_several (v text, chain text, id int, big text, PRIMARY KEY (id, chain))', outside('by_several')],
  columns: ['id', 'chain'],
  key: (random) => `${random.int(1, 300)}, '${random.pick(words)}'`,
  rows: `SELECT i, w FROM generate_series(1, 300) i, unnest('{a,B,é,z}'::text[]) w`,
};

const byText: Subject = {
  name: 'public.by_text',
  setUp: ['CREATE TABLE by_text (k text PRIMARY KEY, v text, big text)', outside('by_text')],
  columns: ['k'],
  key: (random) => `'${random.pick(words)}${random.int(1, 150)}'`,
  rows: `SELECT w || i FROM generate_series(1, 150) i, unnest('{a,B,é,z,_,ä}'::text[]) w`,
};

const byUuid: Subject = {
  name: 'public.by_uuid',
  setUp: ['CREATE TABLE by_uuid (k uuid PRIMARY KEY, v text, big text)', outside('by_uuid')],
  columns: ['k'],
  key: (random) => `md5('${random.int(1, 1_500)}')::uuid`,
  rows: `SELECT md5(i::text)::uuid FROM generate_series(1, 1000) i`,
};

const parts: Subject = {
  name: 'public.parts',
  setUp: [
    'CREATE TABLE parts (id int, day date, v text, big text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day)',
    outside('parts'),
    `CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2026-01-10')`,
    `CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-01-10') TO ('2026-01-20') PARTITION BY RANGE (id)`,
    'CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (MINVALUE) TO (50)',
    'CREATE TABLE parts_2b PARTITION OF parts_2 FOR VALUES FROM (50) TO (MAXVALUE)',
    'CREATE TABLE parts_3 PARTITION OF parts DEFAULT',
  ],
  columns: ['day', 'id'],
  key: (random) => `date '2026-01-01' + ${random.int(0, 29)}, ${random.int(1, 100)}`,
  rows: `SELECT date '2026-01-01' + d, i FROM generate_series(0, 29) d, generate_series(1, 40) i`,
};

const all = [bySeveral, byText, byUuid, parts];

/** A value that is too large for the row itself. */
const large = (random: Random): string => `repeat(md5('${random.int(1, 1e6)}'), 80)`;

/** One change, as SQL. */
function change({ name, columns, key }: Subject, random: Random, n: number): string {
  const at = `(${columns.join(', ')}) = (${key(random)})`;
  const kinds: readonly (() => string)[] = [
    () => `UPDATE ${name} SET v = 'update ${n}' WHERE ${at}`,
    () => `UPDATE ${name} SET v = 'update ${n}', big = ${large(random)} WHERE ${at}`,
    () => `UPDATE ${name} SET (${columns.join(', ')}) = ROW(${key(random)}), v = 'moved ${n}' WHERE ${at}`,
    () => `DELETE FROM ${name} WHERE ${at}`,
    () =>
      `INSERT INTO ${name} (${columns.join(', ')}, v, big) VALUES (${key(random)}, 'insert ${n}', ${large(random)}) ON CONFLICT DO NOTHING`,
    () => `UPDATE ${name} SET v = 'updates ${n}' WHERE md5(${columns[0]}::text || ${columns.at(-1)}::text) LIKE '${random.int(10, 99)}%'`,
  ];
  return random.pick(kinds)();
}

/** Changes rows of all tables until it is told to stop, a few in a transaction. */
async function churn(client: PgClient, subjects: readonly Subject[], random: Random, stop: AbortSignal): Promise<void> {
  for (let n = 0; !stop.aborted; n++) {
    await client.query('BEGIN');
    try {
      for (let i = random.int(1, 3); i > 0; i--) await client.query(change(random.pick(subjects), random, n));
      await client.query(random.chance(0.05) ? 'ROLLBACK' : 'COMMIT');
    } catch {
      // A key that is taken, or a deadlock: neither is of interest here.
      await client.query('ROLLBACK');
    }
  }
}

/** The log tells the table exactly as it is. Values are compared as texts, large ones by their beginning. */
async function expectSame(fixture: CaptureFixture, events: readonly StoredEvent[], { name, columns }: Subject): Promise<void> {
  const names = [...columns, 'v', 'big'];
  const texts = await fixture.query(`SELECT ${names.map((column) => `left(${column}::text, 12) AS ${column}`).join(', ')} FROM ${name}`);
  const folded = [...fold(events, name).values()].map((row) => Object.fromEntries(names.map((column) => [column, short(row[column])])));
  const [table, log] = [new Set(sortedRows(texts)), new Set(sortedRows(folded))];
  expect([...table].filter((row) => !log.has(row)).slice(0, 3), `rows of ${name} that the log does not have (seed ${seed})`).to.deep.equal(
    [],
  );
  expect([...log].filter((row) => !table.has(row)).slice(0, 3), `rows that ${name} does not have (seed ${seed})`).to.deep.equal([]);
  expect(folded.length).to.equal(texts.length);
}

function short(value: unknown): unknown {
  return value === undefined || value === null ? value : String(value).slice(0, 12);
}

describe('backfill: changes race with each chunk', function () {
  this.timeout(90_000);
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
  });
  afterEach(() => fixture.close());

  /** Backfills all tables beside random writers; `meanwhile` is done on the way. */
  async function race(
    subjects: readonly Subject[],
    meanwhile: (capture: RunningCapture, random: Random) => Promise<void> = async () => undefined,
  ): Promise<void> {
    const random = new Random(seed);
    for (const { setUp } of subjects) for (const statement of setUp) await fixture.query(statement);
    for (const { name, columns, rows } of subjects)
      await fixture.query(
        `INSERT INTO ${name} (${columns.join(', ')}, v, big) SELECT *, 'v', repeat(md5(random()::text), 80) FROM (${rows}) r`,
      );
    const capture = await fixture.streaming({ env: smallChunks, snapshot: false });
    const stop = new AbortController();
    const clients = [await fixture.connect(), await fixture.connect(), await fixture.connect()];
    const churning = clients.map((client) => churn(client, subjects, new Random(random.int(1, 1e9)), stop.signal));
    await operatorOf(fixture).ask({ names: subjects.map(({ name }) => name) });
    await meanwhile(capture, random);
    for (const { name } of subjects) await fixture.copied(name, 60_000);
    stop.abort();
    await Promise.all(churning);
    const events = await fixture.settled();
    expectWellFormed(events);
    for (const subject of subjects) await expectSame(fixture, events, subject);
  }

  it('the log folds to the tables: composite, text and UUID keys, partitions, large values, moved rows', () => race(all));

  it('the same when capture is restarted, and the copy paused, again and again', () =>
    race([byUuid, parts], async (first, random) => {
      const operator = operatorOf(fixture);
      let capture = first;
      for (const { name } of [byUuid, parts]) {
        await operator.rows(name, random.int(50, 600));
        const paused = random.chance(0.5) && (await operator.order('pause', name).catch(() => undefined));
        await capture.stop();
        capture = await fixture.streaming({ env: smallChunks, snapshot: false });
        if (!paused) continue;
        await new Promise((resolve) => setTimeout(resolve, random.int(0, 300)));
        await operator.order('resume', name);
      }
    }));

  it('killed again and again, it repeats one chunk at most each time', async () => {
    const [rows, chunk, kills] = [30_000, 500, 3];
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, ${rows}) i`);
    const env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.capture,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_ADMIN_PORT: '0',
      HEADWATER_BACKFILL_CHUNK: String(chunk),
      HEADWATER_SNAPSHOT_MAX: '1KB',
    };
    const random = new Random(seed);
    for (let kill = 1; kill <= kills; kill++) {
      const child = startCli(['run', 'capture'], env);
      fixture.onClose(() => void child.kill('SIGKILL'));
      const least = (kill * rows) / (kills + 2);
      await fixture.until(async () => ((await fixture.record.copy('public.items'))?.rows ?? 0) >= least, `${least} rows`);
      await new Promise((resolve) => setTimeout(resolve, random.int(0, 60)));
      child.kill('SIGKILL');
      await once(child, 'exit');
      expect((await fixture.record.copy('public.items'))!.state, 'killed on the way').to.equal('running');
    }
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: String(chunk) } });
    await fixture.copied('public.items');
    const events = await fixture.settled();
    expectWellFormed(events);
    const keys = events.filter(({ op }) => op === 'read').map(({ key }) => key!['id'] as number);
    expect(new Set(keys).size).to.equal(rows);
    expect(keys.length - rows, `rows repeated after ${kills} kills (seed ${seed})`).to.be.at.most(kills * chunk);
  });

  it('delays no change by more than a chunk', async () => {
    const [rows, chunk] = [60_000, 2_000];
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query('CREATE TABLE live (id int PRIMARY KEY)');
    await fixture.query(`INSERT INTO items SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, ${rows}) i`);
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: String(chunk) }, snapshot: false });
    await fixture.settled();
    const log = await fixture.log();
    const operator = operatorOf(fixture);
    await operator.ask({ names: ['public.items'] });
    await operator.rows('public.items', 1);
    /** For each change: the log's end once it was committed, and when that was. */
    const committed: { end: number; at: number }[] = [];
    const seen = new Map<number, { seq: number; at: number }>();
    const stop = new AbortController();
    const reading = (async (): Promise<void> => {
      for await (const events of log.read(1, { subjects: ['ev.public.live.insert'], signal: stop.signal }))
        for (const { seq, data } of events)
          seen.set((JSON.parse(Buffer.from(data).toString('utf8')) as { key: { id: number } }).key.id, { seq, at: performance.now() });
    })();
    while ((await fixture.record.copy('public.items'))!.state !== 'done') {
      await fixture.query(`INSERT INTO live VALUES (${committed.length})`);
      const at = performance.now();
      committed.push({ at, end: (await log.bounds()).last });
    }
    const events = await fixture.settled();
    await fixture.until(() => seen.size === committed.length, 'all changes to be read');
    stop.abort();
    await reading;
    expect(committed.length, 'changes while it ran').to.be.greaterThan(20);
    const isRead = new Set(events.filter(({ op }) => op === 'read').map(({ seq }) => seq));
    const first = events[0]!.seq;
    const readsUpTo = new Map<number, number>();
    for (let seq = first - 1, n = 0; seq <= events.at(-1)!.seq; seq++) readsUpTo.set(seq, (n += isRead.has(seq) ? 1 : 0));
    const delays = committed.map(({ end }, id) => readsUpTo.get(seen.get(id)!.seq)! - readsUpTo.get(end)!);
    expect(Math.max(...delays), 'rows of the backfill that went before a change that was committed').to.be.at.most(chunk);
    const ms = committed.map(({ at }, id) => seen.get(id)!.at - at);
    expect(Math.max(...ms), 'ms from a commit to a reader').to.be.lessThan(3_000);
  });

  it('makes chunks of small rows large and of large rows small, also where their size changes in between', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query('ALTER TABLE items ALTER v SET STORAGE EXTERNAL');
    await fixture.query(`INSERT INTO items SELECT i, 'v' FROM generate_series(1, 6000) i`);
    await fixture.query(`INSERT INTO items SELECT i, repeat('x', 400000) FROM generate_series(6001, 6120) i`);
    await fixture.query(`INSERT INTO items SELECT i, 'v' FROM generate_series(6121, 9000) i`);
    const capture = await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '4000' }, snapshot: false });
    const operator = operatorOf(fixture);
    expect((await operator.copy('public.items')).rows).to.equal(9_000);
    const chunks = capture.lines.filter(({ msg, chunk }) => msg === 'backfill' && chunk !== undefined) as unknown as {
      chunk: number;
      bytes: number;
    }[];
    expect(Math.max(...chunks.map(({ chunk }) => chunk)), 'small rows').to.equal(4_000);
    expect(Math.max(...chunks.map(({ bytes }) => bytes)), 'bytes of a chunk').to.be.at.most(17 * 1024 ** 2);
    const events = await fixture.settled();
    const keys = events.filter(({ op }) => op === 'read').map(({ key }) => key!['id']);
    expect(keys).to.deep.equal(Array.from({ length: 9_000 }, (_, i) => i + 1));
    expect(events.filter(({ op, after }) => op === 'read' && (after!['v'] as string).length === 400_000).length).to.equal(120);
  });
});
