import { headers, jetstreamManager, type JetStreamManager, type MsgHdrs, type NatsConnection } from '../clients/nats.ts';
import type { LogEvent, Seq } from '../log/event-log.ts';
import { covers } from '../log/jetstream-log.ts';
import { epochKey } from '../log/stream.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { HeadwaterError, messageOf, usage } from '../runtime/errors.ts';
import type { ReplayTarget, Settled } from './target.ts';

const answerMs = 5_000;
const longestWaitMs = 5_000;
const wrongStream = 10060;
const wrongLastMessageId = 10070;
/** What no stream is named: its names have no dots. */
const noStream = 'no.stream';
/** Events leave 256 bytes for headers; with a longer name of the stream, that of the message before would not fit. */
const longestChainedName = 90;

export interface SubjectTargetOptions {
  /** All events to this subject; or, ending in `.>`, each to its own subject with this in the place of the log's first token. */
  readonly subject: string;
  /** Name of the run: with its sequence it is an event's `Nats-Msg-Id`. */
  readonly run: string;
  /** How long one publish is tried, ms; 0: once. */
  readonly patienceMs: number;
  /** Told when something has to be sent again. */
  readonly onRetry: (reason: string, inMs: number) => void;
}

/** What JetStream answers to a publish. */
interface PubAck {
  readonly seq?: number;
  readonly error?: { readonly err_code?: number; readonly description?: string };
}

/** Somebody else's message came between two of a portion. */
class CameBetween extends Error {}

/**
 * A subject of NATS. Where a stream listens, each event is there for good, once: it is acknowledged, and after an interruption the
 * stream is asked what it has. Where none does, whoever subscribes gets the events, and after an interruption some of them again.
 * Each message names the one stream that may keep it: whatever a stream republishes or an account maps into a log, the log refuses.
 */
export class SubjectTarget implements ReplayTarget {
  /** The stream that keeps the events; undefined: nobody does. */
  readonly stream: string | undefined;
  readonly #connection: NatsConnection;
  readonly #jsm: JetStreamManager;
  readonly #options: SubjectTargetOptions;
  /** The target for all events, or what comes in the place of the log's first token. */
  readonly #prefix: string | undefined;
  #settled: Settled;
  /** Until when what is being written is tried, ms of the monotonic clock. */
  #until = Infinity;
  /** Sequences behind `settled` that the stream has from an interrupted run. */
  #stored: ReadonlySet<Seq> = new Set();

  private constructor(
    connection: NatsConnection,
    jsm: JetStreamManager,
    options: SubjectTargetOptions,
    stream: string | undefined,
    before: Settled,
  ) {
    this.#connection = connection;
    this.#jsm = jsm;
    this.#options = options;
    this.#prefix = options.subject.endsWith('.>') ? options.subject.slice(0, -1) : undefined;
    this.stream = stream;
    this.#settled = before;
  }

  /**
   * @param before what an earlier run had sent for certain
   * @throws HeadwaterError `own_subject`, `bad_subject` (usage)
   */
  static async open(connection: NatsConnection, options: SubjectTargetOptions, before: Settled): Promise<SubjectTarget> {
    const jsm = await jetstreamManager(connection, { timeout: answerMs });
    const stream = await streamOf(jsm, options.subject);
    const state = stream === undefined ? {} : { stream, end: await endOf(jsm, stream, before) };
    const target = new SubjectTarget(connection, jsm, options, stream, { ...before, state });
    if (before.through !== undefined || before.state) await target.#lookBack();
    return target;
  }

  async write(events: readonly LogEvent[], signal: AbortSignal): Promise<void> {
    this.#until = performance.now() + this.#options.patienceMs;
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      try {
        if (attempt > 0) await this.#lookBack();
        await this.#publish(
          events.filter(({ seq }) => !this.#stored.has(seq)),
          signal,
        );
        break;
      } catch (error) {
        if (error instanceof HeadwaterError) throw error;
        signal.throwIfAborted();
        const wait = backoffMs(attempt, { baseMs: 100, capMs: longestWaitMs });
        if (performance.now() + wait > this.#until) throw undelivered(this.#options.subject, events, error);
        this.#options.onRetry(messageOf(error), wait);
        await pause(wait, signal);
      }
    }
    const { events: count, bytes, state = {} } = this.#settled;
    const size = events.reduce((sum, { data }) => sum + data.length, 0);
    this.#settled = { through: events.at(-1)!.seq, events: count + events.length, bytes: bytes + size, state };
  }

  settle(): Promise<Settled> {
    return Promise.resolve(this.#settled);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #publish(events: readonly LogEvent[], signal: AbortSignal): Promise<void> {
    if (this.stream === undefined) {
      for (const event of events) this.#connection.publish(this.#subjectOf(event), event.data, { headers: this.#headersOf(event) });
      return this.#connection.flush();
    }
    const together = this.stream.length > longestChainedName ? [] : await this.#askAll(events);
    let end = together.at(-1) ?? 0;
    for (const event of events.slice(together.length)) {
      signal.throwIfAborted();
      end = await this.#ask(event);
    }
    this.#settled = { ...this.#settled, state: { stream: this.stream, end: Math.max(end, this.#end) } };
  }

  /**
   * Publishes events without waiting in between. Each is taken only directly behind the one before it, so that none overtakes one that is
   * refused or lost.
   * @returns the stream's sequences of all of them, or of those before the first that somebody else's message came before
   */
  async #askAll(events: readonly LogEvent[]): Promise<readonly Seq[]> {
    const answers = await Promise.allSettled(events.map((event, i) => this.#ask(event, events[i - 1]?.seq)));
    const stored: Seq[] = [];
    for (const answer of answers) {
      if (answer.status === 'fulfilled') stored.push(answer.value);
      else if (answer.reason instanceof CameBetween) break;
      else throw answer.reason;
    }
    return stored;
  }

  async #ask(event: LogEvent, behind?: Seq): Promise<Seq> {
    const subject = this.#subjectOf(event);
    const answer = await this.#connection.request(subject, event.data, { headers: this.#headersOf(event, behind), timeout: this.#timeout });
    const { error, seq } = answer.json<PubAck>();
    if (!error && seq !== undefined) return seq;
    const said = error?.description ?? 'no sequence in the answer';
    if (error?.err_code === wrongLastMessageId) throw new CameBetween(said);
    if (error?.err_code === wrongStream)
      throw usage(
        'bad_subject',
        `what is published to ${subject} comes to another stream than ${this.stream}: ${said}`,
        'choose a subject that the server leads nowhere else',
      );
    throw new Error(`stream ${this.stream} refused it: ${said}`);
  }

  /** For one answer, ms. */
  get #timeout(): number {
    if (this.#options.patienceMs === 0) return answerMs;
    return Math.max(100, Math.min(answerMs, this.#until - performance.now()));
  }

  get #end(): Seq {
    return Number(this.#settled.state?.['end'] ?? 0);
  }

  #subjectOf({ subject }: LogEvent): string {
    return this.#prefix === undefined ? this.#options.subject : `${this.#prefix}${subject.slice(subject.indexOf('.') + 1)}`;
  }

  #headersOf({ seq, subject, data }: LogEvent, behind?: Seq): MsgHdrs {
    const head = headers();
    const { run } = this.#options;
    const stream = this.stream ?? noStream;
    head.set('Nats-Msg-Id', `${run}.${seq}`);
    head.set('Nats-Expected-Stream', stream);
    if (behind !== undefined) head.set('Nats-Expected-Last-Msg-Id', `${run}.${behind}`);
    head.set('Headwater-Seq', String(seq));
    // Events may be as large as the server takes, less 256 bytes for headers.
    const room = (this.#connection.info?.max_payload ?? 1024 ** 2) - data.length;
    if (room > 200 + stream.length + subject.length) head.set('Headwater-Subject', subject);
    return head;
  }

  /** Finds out what the stream has of this run behind what is settled. Its memory of message ids may be shorter than the interruption. */
  async #lookBack(): Promise<void> {
    if (this.stream === undefined) return;
    const stored = new Set<Seq>();
    const mine = `${this.#options.run}.`;
    for (let seq = this.#end + 1; ; seq++) {
      const query = { seq, next_by_subj: this.#options.subject };
      const message = await this.#jsm.streams.getMessage(this.stream, query);
      if (!message) break;
      ({ seq } = message);
      const id = message.header.get('Nats-Msg-Id');
      if (id.startsWith(mine)) stored.add(Number(id.slice(mine.length)));
    }
    this.#stored = stored;
  }
}

/**
 * Refuses what is no subject to publish to, and what belongs to Headwater or to NATS itself.
 * @param own first tokens of the log's and the dead letters' subjects
 * @throws HeadwaterError `bad_subject`, `own_subject` (usage)
 */
export function requireForeignSubject(subject: string, own: readonly string[]): void {
  const tokens = subject.split('.');
  const [first = ''] = tokens;
  const plain = tokens.every((token, i) => /^[^\s*>]+$/.test(token) || (token === '>' && i > 0 && i === tokens.length - 1));
  if (!plain)
    throw usage(
      'bad_subject',
      `'${subject}' is no subject to publish to`,
      'like replay.prices; or replay.> for a subject of its own for each table and operation',
    );
  if (own.includes(first)) throw ownSubject(`'${subject}' is among Headwater's own subjects (${first}.>)`);
  if (first.startsWith('$') || /^_INBOX/i.test(first)) throw ownSubject(`'${subject}' is among the subjects that NATS keeps for itself`);
}

function ownSubject(message: string): HeadwaterError {
  return usage('own_subject', `${message}: a replay never writes there`, 'choose another subject, like replay.prices');
}

/** The stream that listens to all of the subject, if one does. */
async function streamOf(jsm: JetStreamManager, subject: string): Promise<string | undefined> {
  const names: string[] = [];
  for await (const name of jsm.streams.names(subject)) names.push(name);
  const [name] = names;
  if (name === undefined) return undefined;
  if (names.length > 1)
    throw usage(
      'bad_subject',
      `several streams listen to parts of ${subject}: ${names.join(', ')}`,
      'choose a subject that one of them has wholly, or none',
    );
  const { config } = await jsm.streams.info(name);
  if (config.sealed || !config.subjects.some((one) => covers(one, subject)))
    throw usage(
      'bad_subject',
      `the stream ${name} listens to ${config.sealed ? 'nothing any more: it is sealed' : `${config.subjects.join(', ')}, a part of ${subject} only`}`,
      'choose a subject that it has wholly, or another one',
    );
  if (config.metadata?.[epochKey] !== undefined) throw ownSubject(`'${subject}' goes into the stream ${name}, which is a log of Headwater`);
  return name;
}

/** Behind this sequence of the stream stands what comes now: also when an interrupted run had no stream, or another one. */
async function endOf(jsm: JetStreamManager, stream: string, { state }: Settled): Promise<Seq> {
  const { last_seq: last } = (await jsm.streams.info(stream)).state;
  const end = Number(state?.['end'] ?? last);
  return state?.['stream'] === stream && end <= last ? end : last;
}

function undelivered(subject: string, events: readonly LogEvent[], cause: unknown): HeadwaterError {
  const [first, last] = [events[0]!.seq, events.at(-1)!.seq];
  return new HeadwaterError(
    'replay_undelivered',
    `sequences ${first} to ${last} could not be published to ${subject}: ${messageOf(cause)}`,
    {
      hint: 'see what the server says, or raise --give-up; then the same command with --resume goes on there',
      cause,
    },
  );
}
