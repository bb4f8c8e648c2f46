import type { Catalog } from '../../schemas/catalog.ts';
import type { PgClient } from '../clients/postgres.ts';
import type { Logger } from '../runtime/logging.ts';
import { EventEncoder, messageToken, type Change } from './event-encoder.ts';
import { readBegin, readMessage, readRelation, readRowChange, readTruncate, tag, Tuple, type LogicalMessage } from './pgoutput.ts';
import { comparePositions, formatIdLsn, formatPgTime, nowMicros, type Lsn, type Position } from './position.ts';
import { describeRelation, type Relation, type RowOp } from './relation.ts';
import { ReplicationStream } from './replication-stream.ts';
import type { Source, SourceEvent } from './source.ts';
import { TypeRegistry } from './types.ts';

/** Prefix of the messages by which the database's clock reaches the log. */
export const tickPrefix = 'headwater.tick';

const highWaterBytes = 4 * 1024 ** 2;

export interface PostgresSourceOptions {
  readonly url: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly catalog: Catalog;
  /** First token of the log's subjects. */
  readonly subject: string;
  /** Bytes that an event may have. */
  readonly eventLimit: number;
  readonly log: Logger;
  /** A plain SQL connection to the same database, for what the stream does not say of tables and types. */
  readonly client: PgClient;
  /** The columns last logged of each table (`<schema>.<table>` → JSON): a schema event is due when they differ. */
  readonly schemas: Map<string, string>;
}

/** Committed transactions from a logical replication slot, as encoded events. */
export class PostgresSource implements Source {
  readonly #options: PostgresSourceOptions;
  readonly #types = new TypeRegistry();
  readonly #relations = new Map<number, Relation>();
  readonly #before = new Tuple();
  readonly #after = new Tuple();
  readonly #encoder: EventEncoder;
  #stream: ReplicationStream | undefined;
  #resume: Position = { lsn: 0n, index: 0 };
  #waiting: SourceEvent[] = [];
  #waitingBytes = 0;
  #paused = false;
  #wake: (() => void) | undefined;

  /** The transaction that is being read, and the event of it that is written but not ended. */
  #lsn: Lsn = 0n;
  #xid: number | undefined;
  #idx = 0;
  #open: { subject: string; index: number; table: string | undefined } | undefined;

  constructor(options: PostgresSourceOptions) {
    this.#options = options;
    this.#encoder = new EventEncoder(options.eventLimit);
  }

  /** The newest WAL position of the server that the stream told. */
  get serverEnd(): Lsn {
    return this.#stream?.serverEnd ?? 0n;
  }

  /** How long the stream has given nothing although it was asked to (ms): ticks make it give something all the time. */
  get silentMs(): number {
    return !this.#stream || this.#paused ? 0 : performance.now() - this.#stream.heardAt;
  }

  async *read(after: Position, signal: AbortSignal, onStart?: () => void): AsyncGenerator<readonly SourceEvent[], void, undefined> {
    const { url, slot, publications, log } = this.#options;
    this.#resume = after;
    const stream = await ReplicationStream.open(
      { url, slot, publications, start: after.lsn, applicationName: 'headwater capture', log },
      this.#handle,
    );
    this.#stream = stream;
    onStart?.();
    let failure: Error | undefined;
    const wakeUp = (): void => this.#wake?.();
    stream.ended.then(wakeUp, (error: Error) => {
      failure = error;
      wakeUp();
    });
    signal.addEventListener('abort', wakeUp);
    try {
      while (!signal.aborted) {
        if (this.#waiting.length > 0) yield this.#take();
        else if (failure) throw failure;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      signal.removeEventListener('abort', wakeUp);
      stream.close();
    }
  }

  confirm(lsn: Lsn): void {
    this.#stream?.confirm(lsn);
  }

  #take(): readonly SourceEvent[] {
    const taken = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (this.#paused) {
      this.#paused = false;
      this.#stream?.resume();
    }
    return taken;
  }

  readonly #handle = (source: Buffer, at: number): Promise<void> | undefined => {
    switch (source[at]) {
      case tag.insert:
        return this.#row('insert', source, at);
      case tag.update:
        return this.#row('update', source, at);
      case tag.delete:
        return this.#row('delete', source, at);
      case tag.begin:
        return this.#begin(source, at);
      case tag.commit:
        return this.#commit();
      case tag.relation:
        return this.#relation(source, at);
      case tag.truncate:
        return this.#truncate(source, at);
      case tag.message:
        return this.#message(readMessage(source, at));
      case tag.type:
      case tag.origin:
        return undefined;
      default:
        throw new Error(`pgoutput: unknown message ${source[at]}`);
    }
  };

  #begin(source: Buffer, at: number): undefined {
    const { lsn, time, xid } = readBegin(source, at);
    this.#lsn = lsn;
    this.#xid = xid;
    this.#idx = 0;
    this.#encoder.begin(formatIdLsn(lsn), xid, formatPgTime(time));
  }

  #commit(): undefined {
    this.#end(true);
    this.#xid = undefined;
  }

  async #relation(source: Buffer, at: number): Promise<void> {
    const { client, catalog, subject } = this.#options;
    const message = readRelation(source, at);
    this.#relations.set(message.oid, await describeRelation(client, message, this.#types, catalog, subject));
  }

  #row(op: RowOp, source: Buffer, at: number): undefined {
    const { relation: oid, oldKind } = readRowChange(source, at, this.#before, this.#after);
    const relation = this.#known(oid);
    const change: Change = {
      relation,
      op,
      oldKind,
      before: oldKind === 0 ? undefined : this.#before,
      after: op === 'delete' ? undefined : this.#after,
    };
    this.#change(change);
  }

  #truncate(source: Buffer, at: number): undefined {
    for (const oid of readTruncate(source, at)) {
      this.#change({ relation: this.#known(oid), op: 'truncate', oldKind: 0, before: undefined, after: undefined });
    }
  }

  #change(change: Change): void {
    const { relation } = change;
    const idx = this.#idx++;
    if (!relation.captured) return;
    this.#schema(relation, idx);
    this.#emit(2 * idx + 1, relation.subjects[change.op], relation.name, () => this.#encoder.change(2 * idx + 1, change, idx));
  }

  /** A schema event in front of the first change under columns that the log does not know yet. */
  #schema(relation: Relation, idx: number): void {
    if (this.#options.schemas.get(relation.name) === relation.columnsJson) return;
    const logged = this.#emit(2 * idx, relation.schemaSubject, undefined, () => this.#encoder.schema(2 * idx, relation, idx));
    if (logged) this.#options.schemas.set(relation.name, relation.columnsJson);
  }

  #message(message: LogicalMessage): undefined {
    const { subject } = this.#options;
    const target = `${subject}._message.${messageToken(message.prefix)}`;
    if (!message.transactional) {
      this.#lsn = message.lsn - 1n;
      this.#encoder.begin(formatIdLsn(this.#lsn), undefined, nowMicros());
      this.#emit(1, target, undefined, () => this.#encoder.message(1, message, 0));
      this.#end(false);
      return;
    }
    const idx = this.#idx++;
    if (message.prefix === tickPrefix) this.#emit(2 * idx + 1, `${subject}._tick`, undefined, () => this.#encoder.tick(2 * idx + 1, idx));
    else this.#emit(2 * idx + 1, target, undefined, () => this.#encoder.message(2 * idx + 1, message, idx));
  }

  /** Writes an event unless the log has it already, and ends the one before it. Returns whether it was written. */
  #emit(index: number, subject: string, table: string | undefined, write: () => void): boolean {
    if (this.#lsn <= this.#resume.lsn && comparePositions({ lsn: this.#lsn, index }, this.#resume) <= 0) return false;
    this.#end(false);
    write();
    this.#open = { subject, index, table };
    return true;
  }

  #end(last: boolean): void {
    if (!this.#open) return;
    const { subject, index, table } = this.#open;
    this.#open = undefined;
    const data = this.#encoder.end(last);
    this.#waiting.push({ subject, data, lsn: this.#lsn, index, xid: this.#xid, last: last || this.#xid === undefined, table });
    this.#waitingBytes += data.length;
    if (this.#waitingBytes > highWaterBytes && !this.#paused) {
      this.#paused = true;
      this.#stream?.pause();
    }
    this.#wake?.();
    this.#wake = undefined;
  }

  #known(oid: number): Relation {
    const relation = this.#relations.get(oid);
    if (!relation) throw new Error(`pgoutput: a change of relation ${oid} came before its description`);
    return relation;
  }
}
