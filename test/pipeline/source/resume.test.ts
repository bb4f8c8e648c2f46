import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatLsn, parseLsn, type Position } from '../../../pipeline/source/position.ts';
import { until } from '../../support/role-context.ts';
import { SourceBench, type ReadEvent } from './support/source-bench.ts';

/** A message outside transactions has the time of its capture; all else is the same at each reading. */
function lasting(events: readonly ReadEvent[]): readonly string[] {
  return events.map(({ raw, xid, subject }) => `${subject} ${xid === undefined ? raw.replace(/"at":"[^"]*"/, '') : raw}`);
}

/** The columns that the log has of each table after these events. */
function schemasAfter(events: readonly ReadEvent[]): Map<string, string> {
  return new Map<string, string>(
    events.flatMap(({ event }) =>
      event.type === 'schema' ? [[String(event['relation']), JSON.stringify(event['columns'])] as const] : [],
    ),
  );
}

describe('Postgres source, interrupted', () => {
  let bench: SourceBench;
  const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

  before(async () => {
    bench = await SourceBench.open({
      setUp: [
        'CREATE TABLE a (id int PRIMARY KEY, t text)',
        'CREATE TABLE b (id int PRIMARY KEY, t text)',
        'CREATE TABLE hidden (id int PRIMARY KEY)',
      ],
      catalog: { exclude: ['public.hidden'] },
    });
  });
  after(() => bench?.close());

  it(`gives exactly the rest from any position, with the same ids and bytes (TEST_SEED=${seed})`, async () => {
    await bench.addSlot('_resumed');
    const statements = [
      `INSERT INTO a VALUES (1, 'x')`,
      'BEGIN',
      `INSERT INTO a VALUES (2, 'y')`,
      'INSERT INTO hidden VALUES (1)',
      `INSERT INTO b VALUES (1, 'y'), (2, 'z')`,
      `SELECT pg_logical_emit_message(true, 'm', 'in')`,
      'ALTER TABLE a ADD COLUMN n int',
      'UPDATE a SET n = id',
      'TRUNCATE a, b',
      'INSERT INTO hidden VALUES (2)',
      'COMMIT',
      `SELECT pg_logical_emit_message(false, 'm', 'out')`,
      `INSERT INTO a SELECT i, repeat('x', 100), i FROM generate_series(10, 1500) i`,
      `INSERT INTO b SELECT i, 'b' FROM generate_series(10, 20) i`,
      'DELETE FROM a WHERE id > 1490',
    ];
    for (const statement of statements) await bench.client.query(statement);
    await bench.end();
    const start: Position = { lsn: 0n, index: 0 };
    const whole = await bench.readFrom(start);
    expect(whole.length).to.be.greaterThan(1_500);
    // Every position of the small transactions, some of the large one; upwards, since the server forgets what is confirmed.
    const random = generator(seed);
    const cuts = [
      ...Array.from({ length: 25 }, (_, i) => i),
      ...Array.from({ length: 8 }, () => 25 + Math.floor(random() * (whole.length - 27))),
      whole.length - 2,
    ];
    for (const cut of cuts.toSorted((x, y) => x - y)) {
      const before = whole.slice(0, cut + 1);
      const rest = await bench.readFrom(before.at(-1)!, { slot: bench.slot('_resumed'), schemas: schemasAfter(before) });
      expect(lasting(rest), `after ${before.at(-1)!.event.id}`).to.deep.equal(lasting(whole.slice(cut + 1)));
    }
  });

  it('tells Postgres what is confirmed, and nothing else', async () => {
    const confirmed = async (): Promise<bigint> => {
      const { rows } = await bench.control.query<{ lsn: string }>(
        'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1',
        [bench.slot('_confirmed')],
      );
      return parseLsn(rows[0]!.lsn);
    };
    await bench.addSlot('_confirmed');
    const begun = await confirmed();
    const stop = new AbortController();
    const source = bench.source(bench.slot('_confirmed'));
    const seen: bigint[] = [];
    const reading = (async (): Promise<void> => {
      for await (const events of source.read({ lsn: 0n, index: 0 }, stop.signal)) seen.push(...events.map(({ lsn }) => lsn));
    })();
    for (let i = 0; i < 5; i++) await bench.client.query(`INSERT INTO hidden VALUES (${100 + i})`);
    for (let i = 0; i < 5; i++) await bench.client.query(`INSERT INTO b VALUES (${100 + i}, 'c')`);
    await until(() => seen.length >= 5);
    await sleep(100);
    expect(formatLsn(await confirmed())).to.equal(formatLsn(begun));
    source.confirm(seen[2]! + 1n);
    await until(async () => (await confirmed()) === seen[2]! + 1n, 5_000, 'the confirmation');
    // A position of before is no step back.
    source.confirm(seen[0]! + 1n);
    await sleep(50);
    expect(await confirmed()).to.equal(seen[2]! + 1n);
    stop.abort();
    await reading;
  });

  it('waits with reading while its events are not taken, and loses none', async function () {
    this.timeout(40_000);
    await bench.client.query('CREATE TABLE large (id int PRIMARY KEY, t text)');
    await bench.client.query('ALTER TABLE large ALTER COLUMN t SET STORAGE EXTERNAL');
    await bench.addSlot('_slow');
    const { rows } = await bench.client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
    const begin = parseLsn(rows[0]!.lsn);
    await bench.client.query(
      `DO $$ BEGIN FOR i IN 0..39 LOOP INSERT INTO large SELECT i * 100 + j, repeat('x', 10000) FROM generate_series(1, 100) j; COMMIT; END LOOP; END $$`,
    );
    const source = bench.source(bench.slot('_slow'));
    const stop = new AbortController();
    const ids: number[] = [];
    let sent = 0n;
    for await (const events of source.read({ lsn: 0n, index: 0 }, stop.signal)) {
      if (ids.length === 0) {
        await sleep(1_000);
        const { rows: found } = await bench.control.query<{ sent: string }>(
          'SELECT sent_lsn::text AS sent FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1',
          [bench.slot('_slow')],
        );
        sent = parseLsn(found[0]!.sent) - begin;
      }
      for (const { table, data } of events)
        if (table === 'public.large') ids.push((JSON.parse(Buffer.from(data).toString()) as { after: { id: number } }).after.id);
      if (ids.length >= 4_000) stop.abort();
    }
    expect(ids).to.deep.equal(Array.from({ length: 4_000 }, (_, i) => i + 1));
    // 40 MB in all; 8 MB may wait, the rest of it in the buffers of the two sockets.
    expect(Number(sent) / 1e6).to.be.below(30);
  });
});

/** Numbers from 0 to 1 that depend on the seed alone (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
