import { expect } from 'chai';
import { defaultCatalog, type Catalog } from '../../../../schemas/catalog.ts';
import type { ParsedEvent } from '../../../../schemas/generated/event.ts';
import { createValidators } from '../../../../schemas/validate.ts';
import { connectPostgres, stableText, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { EventEncoder } from '../../../../pipeline/source/event-encoder.ts';
import { formatId, formatIdLsn, nowMicros, type Position } from '../../../../pipeline/source/position.ts';
import { PostgresSource } from '../../../../pipeline/source/postgres-source.ts';
import type { SourceEvent } from '../../../../pipeline/source/source.ts';
import { describeTable, readRows, selectRows, type RowRange } from '../../../../pipeline/source/table-reader.ts';
import { TypeRegistry } from '../../../../pipeline/source/types.ts';
import { freshDatabase, type FreshDatabase } from '../../../support/servers.ts';

/** An event of the source, its bytes as text, and what they say. */
export interface ReadEvent extends SourceEvent {
  readonly raw: string;
  readonly event: ParsedEvent & Readonly<Record<string, unknown>>;
}

export interface BenchOptions {
  /** Statements before the slot is made. */
  readonly setUp?: readonly string[];
  readonly catalog?: Partial<Catalog>;
  readonly eventLimit?: number;
}

/** Ends each reading: a message of a transaction of its own. */
const endPrefix = 'test.end';
const endSubject = `ev._message.${endPrefix.replace('.', '%2E')}`;
const beginning: Position = { lsn: 0n, index: 0 };
const validate = createValidators().event;

/** A database of its own with a publication of all tables and a slot. */
export class SourceBench {
  readonly url: string;
  /** An ordinary session of the application's. */
  readonly client: PgClient;
  readonly control: PgClient;
  /** Where the next reading begins. */
  position: Position = beginning;
  /** The columns that the log would hold, by table. */
  schemas = new Map<string, string>();
  readonly #database: FreshDatabase;
  readonly #catalog: Catalog;
  readonly #eventLimit: number;

  private constructor(database: FreshDatabase, client: PgClient, control: PgClient, options: BenchOptions) {
    this.#database = database;
    this.url = database.url;
    this.client = client;
    this.control = control;
    this.#catalog = { ...defaultCatalog(), ...options.catalog };
    this.#eventLimit = options.eventLimit ?? 1_000_000;
  }

  static async open(options: BenchOptions = {}): Promise<SourceBench> {
    const database = await freshDatabase();
    const first = await connectPostgres(database.url, 'test', silentLogger());
    for (const statement of options.setUp ?? []) await first.query(statement);
    await first.query('CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)');
    await first.end();
    // Defaults of the database that the set-up has changed hold for sessions that begin now.
    const client = await connectPostgres(database.url, 'test', silentLogger());
    const control = await connectPostgres(database.url, 'test control', silentLogger());
    for (const statement of stableText) await control.query(statement);
    const bench = new SourceBench(database, client, control, options);
    await bench.addSlot('');
    return bench;
  }

  async close(): Promise<void> {
    await this.client.end();
    await this.control.end();
    await this.#database.drop();
  }

  /** A slot beside the usual one, from here on. */
  async addSlot(suffix: string): Promise<void> {
    await this.control.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [this.slot(suffix)]);
  }

  slot(suffix = ''): string {
    return `${this.#database.name}${suffix}`;
  }

  /** Runs statements one after the other and gives the events they made, without the end mark of this reading. */
  async captured(...statements: readonly string[]): Promise<readonly ReadEvent[]> {
    for (const statement of statements) await this.client.query(statement);
    return this.read();
  }

  /** Reads what has been committed so far, from where the last reading ended. */
  async read(): Promise<readonly ReadEvent[]> {
    await this.end();
    const events = await this.readFrom(this.position, { schemas: this.schemas });
    this.position = events.at(-1)!;
    return events.slice(0, -1);
  }

  /** Marks the end of a reading. */
  async end(): Promise<void> {
    await this.client.query(`SELECT pg_logical_emit_message(true, '${endPrefix}', '')`);
  }

  /** Reads from a position to the first end mark behind it, that one included. */
  async readFrom(after: Position, { slot = this.slot(), schemas = new Map<string, string>() } = {}): Promise<readonly ReadEvent[]> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#readOnce(after, slot, schemas);
      } catch (error) {
        // The reader before has closed its connection, but the server has not noticed yet.
        if (!(error instanceof HeadwaterError && error.code === 'slot_active') || attempt === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }

  /** A reader of a slot of its own. */
  source(slot = this.slot(), schemas = new Map<string, string>()): PostgresSource {
    return new PostgresSource({
      url: this.url,
      slot,
      publications: ['everything'],
      catalog: this.#catalog,
      subject: 'ev',
      eventLimit: this.#eventLimit,
      log: silentLogger(),
      client: this.control,
      schemas,
    });
  }

  async #readOnce(after: Position, slot: string, schemas: Map<string, string>): Promise<readonly ReadEvent[]> {
    const source = this.source(slot, schemas);
    const found: ReadEvent[] = [];
    for await (const events of source.read(after, AbortSignal.timeout(20_000))) {
      for (const event of events) {
        found.push(parsed(event));
        if (event.subject === endSubject) {
          requireOrder(after, found);
          return found;
        }
      }
    }
    throw new Error(`no end within 20 s, after ${found.length} events`);
  }

  /** Reads a table as a snapshot or a backfill does. */
  async copy(schema: string, table: string, range: RowRange = {}): Promise<readonly ReadEvent[]> {
    const { rows } = await this.control.query<{ oid: number }>(
      `SELECT c.oid::int8::float8 AS oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
      [schema, table],
    );
    const readable = await describeTable(this.control, { oid: rows[0]!.oid, schema, table }, new TypeRegistry(), this.#catalog, 'ev');
    const { relation } = readable;
    const encoder = new EventEncoder(this.#eventLimit);
    const found: ReadEvent[] = [];
    let index = 0;
    await readRows(this.control, selectRows(readable, range), (after) => {
      encoder.begin(formatIdLsn(1n), undefined, nowMicros());
      encoder.change(index, { relation, op: 'read', before: undefined, oldKind: 0, after }, 0);
      found.push(
        parsed({
          subject: relation.subjects.read,
          data: encoder.end(false),
          lsn: 1n,
          index: index++,
          xid: undefined,
          last: true,
          table: relation.name,
        }),
      );
    });
    return found;
  }
}

function parsed(source: SourceEvent): ReadEvent {
  const raw = Buffer.from(source.data).toString('utf8');
  const event = JSON.parse(raw) as ReadEvent['event'];
  expect(validate(event), raw.slice(0, 2_000)).to.equal(undefined);
  expect(event.id).to.equal(formatId(source));
  return { ...source, raw, event };
}

/** Ids go up, and the last event of each transaction says so, and no other. */
function requireOrder(after: Position, events: readonly ReadEvent[]): void {
  let before = formatId(after);
  for (const [i, { event, xid, lsn, last }] of events.entries()) {
    expect(event.id > before, `${event.id} after ${before}`).to.equal(true);
    before = event.id;
    const ends = events[i + 1]?.lsn !== lsn;
    expect(last, `${event.id} ends its transaction`).to.equal(ends);
    const { tx } = event as { tx?: { xid: number; last?: boolean } };
    expect(tx?.xid).to.equal(xid);
    if (tx) expect(tx.last).to.equal(ends ? true : undefined);
  }
}

/** The text of a member of a row: `after` or `before` of an event, as it stands in its bytes. */
export function columnText(raw: string, column: string): string {
  const label = `${JSON.stringify(column)}:`;
  const at = raw.indexOf(label);
  expect(at, `${column} in ${raw.slice(0, 500)}`).to.be.greaterThan(-1);
  const start = at + label.length;
  let depth = 0;
  for (let i = start; i < raw.length; i++) {
    const char = raw[i]!;
    if (char === '"') {
      for (i++; raw[i] !== '"'; i++) if (raw[i] === '\\') i++;
    } else if ('{['.includes(char)) depth++;
    else if (depth === 0 && ',}'.includes(char)) return raw.slice(start, i);
    else if ('}]'.includes(char)) depth--;
  }
  throw new Error(`${column} does not end`);
}
