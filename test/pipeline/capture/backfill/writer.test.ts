import { expect } from 'chai';
import { ChunkReader, type Chunk } from '../../../../pipeline/capture/backfill/reader.ts';
import { ChunkWriter } from '../../../../pipeline/capture/backfill/writer.ts';
import { CaptureLog } from '../../../../pipeline/capture/capture-log.ts';
import { ChangeTracker } from '../../../../pipeline/capture/backfill/change-tracker.ts';
import { LogWriter } from '../../../../pipeline/capture/log-writer.ts';
import { selectTables } from '../../../../pipeline/capture/tables.ts';
import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { defaultCatalog } from '../../../../schemas/catalog.ts';
import { MemoryLog } from '../../../support/memory-log.ts';
import { sourceEvent, transaction } from '../support/source-events.ts';
import { freshDatabase, type FreshDatabase } from '../../../support/servers.ts';

const table = 'public.items';
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

describe('backfill: a chunk on its way into the log', () => {
  let database: FreshDatabase;
  let sql: PgClient;
  let reader: ChunkReader;
  let log: MemoryLog;
  let out: CaptureLog;
  let writing: Promise<void>;
  let stopping: AbortController;
  const schemas = new Map<string, string>();
  let tracker: ChangeTracker;

  beforeEach(async () => {
    database = await freshDatabase();
    sql = await connectPostgres(database.url, 'test', silentLogger());
    await sql.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await sql.query(`INSERT INTO items SELECT i, 'old' FROM generate_series(1, 1200) i`);
    const found = (await selectTables(sql, defaultCatalog())).tables.find(({ name }) => name === table)!;
    const options = { url: database.url, catalog: defaultCatalog(), subject: 'ev', timeoutMs: 5_000, log: silentLogger() };
    reader = new ChunkReader({ ...options, chunkRows: 1_200 }, found);
    log = new MemoryLog();
    tracker = new ChangeTracker();
    tracker.track(table);
    stopping = new AbortController();
    const writer = new LogWriter(log, { seq: 0, position: { lsn: 1n, index: 0 } }, silentLogger(), stopping.signal);
    out = new CaptureLog(writer, tracker, 1_000_000, true, () => undefined);
    writing = out.run(stopping.signal);
    schemas.clear();
  });
  afterEach(async () => {
    tracker.untrack(table);
    stopping.abort();
    await writing;
    await reader.close();
    await sql.end();
    await database.drop();
  });

  const read = (after?: readonly string[]): Promise<Chunk> => reader.read({ after }, (snapshot) => tracker.forgetChanges(snapshot));
  const writer = (tick: () => Promise<void>): ChunkWriter => new ChunkWriter({ subject: 'ev', out, tracker, schemas, tick });
  /** What the stream brings: one transaction behind a position. */
  const streamed = (lsn: bigint, body: object = {}): Promise<void> => out.push([sourceEvent({ lsn, xid: 1, table, body })]);
  const ops = async (): Promise<unknown[]> => {
    const found: unknown[] = [];
    for (let seq = 1; seq <= log.head; seq++) {
      const { op, type } = JSON.parse(Buffer.from((await log.get(seq))!.data).toString('utf8')) as { op?: string; type?: string };
      found.push(op ?? type);
    }
    return found;
  };

  it('never arrives once its tick has failed: what is newer has been forgotten by then', async () => {
    const chunk = await read();
    const failed = await writer(() => Promise.reject(new Error('the tick failed')))
      .insert(chunk, undefined)
      .catch((error: Error) => error.message);
    expect(failed).to.equal('the tick failed');
    tracker.untrack(table);
    await streamed(chunk.position + 100n, { op: 'delete', key: { id: 1 } });
    await turn();
    expect(await ops(), 'the change alone').to.deep.equal(['delete']);
  });

  it('is read with fewer rows after each one that was too old to be logged, and with more after each one that was not', async () => {
    // The first one is small, since nothing is known of the rows.
    await read();
    const rows = async (): Promise<number> => (await read()).rows.length;
    reader.readLess(undefined);
    expect(await rows()).to.equal(600);
    reader.readLess(undefined);
    expect(await rows(), 'one that is logged in one go').to.equal(500);
    expect(await rows(), 'as long as nothing has come of that one').to.equal(500);
    reader.readLess(undefined);
    expect(await rows(), 'and not fewer').to.equal(500);
    for (const next of [1_000, 1_200, 1_200]) {
      reader.readMore();
      expect(await rows()).to.equal(next);
    }
  });

  it('is logged up to where a transaction comes between of which not every row is remembered', async () => {
    await read();
    const chunk = await read();
    const inserting = writer(() => Promise.resolve()).insert(chunk, undefined);
    const append = log.append.bind(log);
    let came: Promise<void> | undefined;
    log.append = (events, expected) => {
      // The stream brings it when the first portion has just been logged.
      if (expected >= 2)
        came ??= out.push(transaction(chunk.position + 200n, 50_001, { xid: 2 ** 31 - 1, table, body: { op: 'update', key: { id: 1 } } }));
      return append(events, expected);
    };
    await streamed(chunk.position + 100n);
    const inserted = await inserting;
    expect([inserted?.logged, inserted?.rows]).to.deep.equal([500, 500]);
    await came;
    expect(await writer(() => Promise.resolve()).insert(chunk, undefined), 'from its beginning').to.equal(undefined);
    expect((await ops()).filter((op) => op === 'read').length).to.equal(500);
  });

  it('without rows it waits for its position too', async () => {
    const chunk = await read(['5000']);
    expect(chunk.rows.length).to.equal(0);
    let ended = false;
    const inserting = writer(() => Promise.resolve())
      .insert(chunk, undefined)
      .then(() => (ended = true));
    await turn();
    expect(ended, 'before the log has come to it').to.equal(false);
    await streamed(chunk.position + 100n);
    await inserting;
  });

  it('is given up when the table is redefined between two of its portions, or after it was read', async () => {
    // The first one is small, since nothing is known of the rows.
    await read();
    const chunk = await read();
    const redefined = '[{"name":"id","type":"integer","key":true}]';
    const inserting = writer(() => Promise.resolve())
      .insert(chunk, undefined)
      .catch((error: Error) => error.message);
    const append = log.append.bind(log);
    log.append = (events, expected) => {
      // The source has met new columns when the first portion has just been logged.
      if (expected >= 2) schemas.set(table, redefined);
      return append(events, expected);
    };
    await streamed(chunk.position + 100n);
    expect(await inserting).to.include('columns of public.items have changed');
    const written = await ops();
    expect(written.filter((op) => op === 'schema').length, 'schema events of the old columns').to.equal(1);
    expect(written.filter((op) => op === 'read').length, 'of its 1,200 rows').to.equal(500);
    const again = await writer(() => Promise.resolve())
      .insert(chunk, 'columns of when it was read')
      .catch((error: Error) => error.message);
    expect(again).to.include('have changed');
    expect((await ops()).length, 'nothing more').to.equal(written.length);
  });
});
