import type { Duplex } from 'node:stream';
import { connectPostgres, escapeIdentifier, escapeLiteral, stableText, type PgClient } from '../clients/postgres.ts';
import { HeadwaterError, messageOf, refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { formatLsn, type Lsn } from './position.ts';

const copyData = 0x64; // d
const copyBoth = 0x57; // W
const copyDone = 0x63; // c
const errorResponse = 0x45; // E
const xlogData = 0x77; // w
const keepalive = 0x6b; // k
const standbyStatus = 0x72; // r
const microsecondsTo2000 = 946_684_800_000_000n;
/** Reads of this size come of a backlog: single commits come in reads of a few hundred bytes. */
const backlogBytes = 8_192;
/** What a read gives at most: then there is more to read at once. */
const fullRead = 65_536;
const backlogPauseMs = 1;
const statusMs = 5_000;

/** Takes one message of the output plugin, which begins at `at`; a promise when no other may come before it is settled. */
export type MessageHandler = (source: Buffer, at: number) => Promise<void> | undefined;

export interface ReplicationOptions {
  readonly url: string;
  readonly slot: string;
  readonly publications: readonly string[];
  /** Where to begin; the server begins at the slot's own confirmed position if that is later. */
  readonly start: Lsn;
  readonly applicationName: string;
  readonly log: Logger;
}

/**
 * A logical replication connection (PostgreSQL manual, "Streaming Replication Protocol"). `pg` connects and authenticates;
 * from then on the bytes are ours, since its parser makes an object and a copy for each message.
 */
export class ReplicationStream {
  readonly #client: PgClient;
  readonly #socket: Duplex;
  readonly #handle: MessageHandler;
  readonly #paced: boolean;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #needed = 5;
  #blocked = false;
  #heldBack = false;
  #confirmed: Lsn;
  #timer: NodeJS.Timeout | undefined;
  #settle!: (error?: Error) => void;
  /** Settles when the connection has ended: rejected with the reason, unless `close` was called. */
  readonly ended: Promise<void>;
  /** The server's newest WAL position that it told us. */
  serverEnd: Lsn = 0n;
  /** When something last came (`performance.now()`), or reading was resumed. */
  heardAt = performance.now();

  private constructor(client: PgClient, options: ReplicationOptions, handle: MessageHandler) {
    this.#client = client;
    this.#socket = (client as unknown as { connection: { stream: Duplex } }).connection.stream;
    this.#handle = handle;
    this.#confirmed = options.start;
    this.#paced = !new URL(options.url).searchParams.has('host');
    this.ended = new Promise((resolve, reject) => {
      this.#settle = (error) => (error ? reject(error) : resolve());
    });
    this.ended.catch(() => undefined);
  }

  /** Connects and starts streaming. Throws `slot_active` (reaction `retry`) while another process reads the slot. */
  static async open(options: ReplicationOptions, handle: MessageHandler): Promise<ReplicationStream> {
    const client = await connectReplication(options.url, options.applicationName, options.log);
    const stream = new ReplicationStream(client, options, handle);
    await stream.#start(options);
    return stream;
  }

  async #start(options: ReplicationOptions): Promise<void> {
    const publications = options.publications.map(escapeIdentifier).join(',');
    const command = `START_REPLICATION SLOT ${escapeIdentifier(options.slot)} LOGICAL ${formatLsn(options.start)} (proto_version '1', publication_names ${escapeLiteral(publications)}, messages 'true')`;
    const started = new Promise<void>((resolve, reject) => {
      this.#onStart = (error) => (error ? reject(error) : resolve());
    });
    this.#socket.removeAllListeners('data');
    this.#socket.on('data', this.#receive);
    this.#client.on('error', this.#fail);
    this.#client.on('end', () => this.#fail(new Error('the server closed the replication connection')));
    this.#socket.write(queryMessage(command));
    try {
      await started;
    } catch (error) {
      this.#socket.destroy();
      throw error;
    }
    this.#timer = setInterval(() => this.#sendStatus(), statusMs);
  }
  #onStart: ((error?: Error) => void) | undefined;

  /** Everything before `lsn` is durable elsewhere. Sent at once; positions only go up. */
  confirm(lsn: Lsn): void {
    if (lsn <= this.#confirmed) return;
    this.#confirmed = lsn;
    this.#sendStatus();
  }

  /** Backpressure: stops reading until `resume`. */
  pause(): void {
    this.#heldBack = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#heldBack = false;
    this.heardAt = performance.now();
    if (!this.#blocked) this.#socket.resume();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#settle();
    this.#socket.destroy();
  }

  readonly #fail = (error: Error): void => {
    clearInterval(this.#timer);
    this.#onStart?.(error);
    this.#settle(error);
    this.#socket.destroy();
  };

  readonly #receive = (chunk: Buffer): void => {
    this.heardAt = performance.now();
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    if (this.#blocked) return;
    this.#consume();
    // A reader that is too quick makes the walsender send and wake up row by row, which doubles what it costs the server.
    // So when a backlog has been read to its end, it gets a moment to put more together.
    if (this.#paced && chunk.length >= backlogBytes && chunk.length < fullRead && !this.#blocked && !this.#heldBack) {
      this.#socket.pause();
      setTimeout(() => !this.#blocked && !this.#heldBack && this.#socket.resume(), backlogPauseMs);
    }
  };

  /** Handles all whole messages that are buffered; stops where a handler has to wait for something. */
  #consume(): void {
    if (this.#buffered < this.#needed) return;
    const source = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#buffered);
    let at = 0;
    let wait: Promise<void> | undefined;
    this.#needed = 5;
    while (!wait && source.length - at >= 5) {
      const end = at + 1 + source.readInt32BE(at + 1);
      if (end > source.length) {
        this.#needed = end - at;
        break;
      }
      try {
        wait = this.#dispatch(source, at, end);
      } catch (error) {
        return this.#fail(error as Error);
      }
      at = end;
    }
    this.#chunks = at < source.length ? [source.subarray(at)] : [];
    this.#buffered = source.length - at;
    if (wait) this.#block(wait);
  }

  #block(wait: Promise<void>): void {
    this.#blocked = true;
    this.#socket.pause();
    wait.then(
      () => {
        this.#blocked = false;
        this.#consume();
        if (!this.#blocked && !this.#heldBack) this.#socket.resume();
      },
      (error: unknown) => this.#fail(error as Error),
    );
  }

  #dispatch(source: Buffer, at: number, end: number): Promise<void> | undefined {
    const kind = source[at];
    const body = at + 5;
    if (kind === copyData) return this.#copyData(source, body);
    if (kind === copyBoth) this.#onStart?.();
    if (kind === errorResponse) this.#fail(serverError(source, body, end));
    if (kind === copyDone) this.#fail(new Error('the server ended the replication stream'));
    return undefined;
  }

  #copyData(source: Buffer, body: number): Promise<void> | undefined {
    if (source[body] === xlogData) {
      const serverEnd = source.readBigUInt64BE(body + 9);
      if (serverEnd > this.serverEnd) this.serverEnd = serverEnd;
      return this.#handle(source, body + 25);
    }
    if (source[body] === keepalive) {
      this.serverEnd = source.readBigUInt64BE(body + 1);
      if (source[body + 17] === 1) this.#sendStatus();
    }
    return undefined;
  }

  #sendStatus(): void {
    const message = Buffer.alloc(39);
    message[0] = copyData;
    message.writeInt32BE(38, 1);
    message[5] = standbyStatus;
    for (const offset of [6, 14, 22]) message.writeBigUInt64BE(this.#confirmed, offset);
    message.writeBigInt64BE(BigInt(Date.now()) * 1_000n - microsecondsTo2000, 30);
    if (this.#socket.writable) this.#socket.write(message);
  }
}

/** A connection that speaks the replication protocol, with settings under which values have one text form. */
export async function connectReplication(url: string, applicationName: string, log: Logger): Promise<PgClient> {
  const client = await connectPostgres(url, applicationName, log, { replication: 'database' } as object);
  try {
    for (const setting of stableText) await client.query(setting);
    return client;
  } catch (error) {
    await client.end();
    throw new HeadwaterError('replication_refused', `PostgreSQL refuses a replication connection: ${messageOf(error)}`, {
      reaction: 'retry',
      cause: error,
    });
  }
}

function queryMessage(sql: string): Buffer {
  const text = Buffer.from(`${sql}\0`);
  const header = Buffer.alloc(5);
  header.write('Q', 0, 'latin1');
  header.writeInt32BE(text.length + 4, 1);
  return Buffer.concat([header, text]);
}

/** An ErrorResponse: fields of a type byte and a string each. */
function serverError(source: Buffer, body: number, end: number): Error {
  const fields = new Map(
    source
      .toString('utf8', body, end)
      .split('\0')
      .filter(Boolean)
      .map((field) => [field[0], field.slice(1)]),
  );
  const message = fields.get('M') ?? 'unknown error';
  if (fields.get('C') === '42704')
    return refused('replication_refused', `PostgreSQL: ${message}`, 'take a new snapshot: headwater resnapshot');
  const active = fields.get('C') === '55006';
  return new HeadwaterError(active ? 'slot_active' : 'replication_failed', `PostgreSQL: ${message}`, { reaction: 'retry' });
}
