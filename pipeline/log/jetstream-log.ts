import { JetStreamApiError, jetstreamManager, nanos, type JetStreamManager, type NatsConnection } from '../clients/nats.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { HeadwaterError, messageOf, refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { OffsetExpired } from './errors.ts';
import type { Bounds, EventLog, LogEvent, NewEvent, ReadOptions, Seq } from './event-log.ts';
import { Link } from './link.ts';
import { Publisher } from './publisher.ts';
import { PullReader, type PullOptions } from './pull-reader.ts';
import { epochKey, epochStartKey, ensureStream, renewEpoch, type StreamSettings } from './stream.ts';

const defaultHighWater = 4 * 1024 ** 2;
const trimCheckMs = 1_000;
const noSuchMessage = 10037;
const streamNotFound = 10059;

/** The epoch that a reading began in. */
interface History {
  epoch: string | undefined;
}

/** The log on a JetStream stream. */
export class JetStreamLog implements EventLog {
  readonly #connection: NatsConnection;
  readonly #jsm: JetStreamManager;
  readonly #stream: string;
  readonly #all: string;
  readonly #log: Logger;
  readonly #link: Link;
  readonly #publisher: Publisher;

  private constructor(
    connection: NatsConnection,
    jsm: JetStreamManager,
    settings: Pick<StreamSettings, 'stream' | 'subject'>,
    log: Logger,
  ) {
    this.#connection = connection;
    this.#jsm = jsm;
    this.#stream = settings.stream;
    this.#all = `${settings.subject}.>`;
    this.#log = log;
    this.#link = new Link(connection);
    this.#publisher = new Publisher(connection, this.#link);
  }

  /** Opens the log for writing: makes the stream or checks that the one that is there fits. */
  static async create(connection: NatsConnection, settings: StreamSettings, log: Logger): Promise<JetStreamLog> {
    const jsm = await jetstreamManager(connection, { timeout: 10_000 });
    await ensureStream(jsm, settings, connection.info?.max_payload ?? 1024 ** 2);
    return new JetStreamLog(connection, jsm, settings, log);
  }

  /** Opens the log for reading. Throws `no_log` (reaction `retry`) while its stream does not exist. */
  static async open(connection: NatsConnection, settings: Pick<StreamSettings, 'stream' | 'subject'>, log: Logger): Promise<JetStreamLog> {
    const jsm = await jetstreamManager(connection, { timeout: 10_000 });
    await jsm.streams.info(settings.stream).catch((error: unknown) => {
      throw new HeadwaterError('no_log', `stream ${settings.stream} is not there: ${messageOf(error)}`, {
        reaction: 'retry',
        hint: 'start capture, which makes it',
      });
    });
    return new JetStreamLog(connection, jsm, settings, log);
  }

  /** Bytes an event with its headers may have. */
  get maxPayload(): number {
    return this.#connection.info?.max_payload ?? 1024 ** 2;
  }

  append(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    return this.#publisher.append(events, expectedLastSeq);
  }

  appendEach(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    return this.#publisher.appendEach(events, expectedLastSeq);
  }

  async *read(from: Seq, options: ReadOptions = {}): AsyncGenerator<readonly LogEvent[], void, undefined> {
    let next = Math.max(1, from);
    const history: History = { epoch: undefined };
    const tick = this.#all.replace(/>$/, '_tick');
    // All else that comes was asked for.
    const withoutTicks = options.subjects !== undefined && !matchesAny(tick, options.subjects);
    for (let attempt = 0; !options.signal?.aborted; attempt++) {
      try {
        for await (const events of this.#readOnce(next, options, history)) {
          next = events.at(-1)!.seq + 1;
          attempt = 0;
          const wanted = withoutTicks ? events.filter((event) => event.subject !== tick) : events;
          if (wanted.length > 0) yield wanted;
          if (options.signal?.aborted) return;
        }
      } catch (error) {
        if (error instanceof HeadwaterError && error.reaction !== 'retry') throw error;
        if (options.signal?.aborted) return;
        this.#log.debug({ error: messageOf(error), next }, 'reading the log was interrupted, going on from where it was');
        await pause(backoffMs(attempt), options.signal);
      }
    }
  }

  /**
   * Reads with one consumer until it breaks. Filtered readers get the ticks too, so that their position moves on and a
   * trim that overtakes them is noticed (the server itself skips what it has trimmed without a word).
   */
  async *#readOnce(from: Seq, options: ReadOptions, history: History): AsyncGenerator<readonly LogEvent[], void, undefined> {
    const tick = this.#all.replace(/>$/, '_tick');
    const subjects = options.subjects ? withoutOverlap([...options.subjects, tick]) : [this.#all];
    const reader = await this.#open({
      start: { seq: from },
      subjects,
      highWaterBytes: options.highWaterBytes ?? defaultHighWater,
    });
    try {
      let position = from;
      let checkedAt = -Infinity;
      for (;;) {
        if (performance.now() - checkedAt > trimCheckMs) {
          await this.#requireHeld(position, history);
          checkedAt = performance.now();
        }
        const { behind } = reader;
        const events = await reader.take(options.signal);
        if (!events) return;
        if (!options.subjects) requireContiguous(position, events);
        // What the server had not sent yet, it may have trimmed and passed over. To a reader that keeps up it sends at once.
        else if (behind) await this.#requireHeld(position, history);
        position = events.at(-1)!.seq + 1;
        yield events;
      }
    } finally {
      reader.close();
    }
  }

  async #open(options: Omit<PullOptions, 'stream' | 'maxPayload'>): Promise<PullReader> {
    let opening: Promise<PullReader> | undefined;
    const open = (): Promise<PullReader> =>
      (opening = PullReader.open(this.#connection, this.#jsm, { ...options, stream: this.#stream, maxPayload: this.maxPayload }));
    try {
      return await this.#link.ask(open);
    } catch (error) {
      // Should it open after all, nobody waits for it any more.
      opening?.then(
        (reader) => reader.close(),
        () => undefined,
      );
      throw error;
    }
  }

  /** Is what comes after `position` still there, and is it still the history that the reading began in? */
  async #requireHeld(position: Seq, history: History): Promise<void> {
    const { first, last, epoch } = await this.bounds();
    history.epoch ??= epoch;
    if (epoch !== history.epoch)
      throw refused(
        'epoch_changed',
        `the log's epoch is ${epoch} now, and the reading began in ${history.epoch}`,
        'begin anew at the epoch’s first event',
      );
    if (position > last + 1)
      throw refused('log_regressed', `the log ends at ${last}, before the reader's position ${position}`, 'begin anew');
    if (position < first && position <= last) throw new OffsetExpired(position, first);
  }

  async get(seq: Seq): Promise<LogEvent | undefined> {
    return this.#message({ seq });
  }

  async last(subject: string = this.#all): Promise<LogEvent | undefined> {
    return this.#message({ last_by_subj: subject });
  }

  /** The first event of a subject at or after a sequence, if there is one. */
  async nextOf(subject: string, from: Seq): Promise<LogEvent | undefined> {
    return this.#message({ seq: from, next_by_subj: subject });
  }

  async lastPerSubject(subject: string): Promise<readonly LogEvent[]> {
    const reader = await this.#open({
      start: { lastPerSubject: true },
      subjects: [subject],
      highWaterBytes: 64 * 1024 ** 2,
    });
    try {
      const found: LogEvent[] = [];
      while (!reader.drained) {
        const events = await reader.take(AbortSignal.timeout(10_000));
        if (!events) throw new HeadwaterError('log_timeout', `no answer about ${subject} in 10 s`, { reaction: 'retry' });
        found.push(...events);
      }
      return found;
    } finally {
      reader.close();
    }
  }

  async firstSince(time: Date): Promise<LogEvent | undefined> {
    const info = await this.#link.ask(() =>
      this.#jsm.consumers.add(this.#stream, {
        ack_policy: 'none',
        mem_storage: true,
        num_replicas: 1,
        inactive_threshold: nanos(1_000),
        deliver_policy: 'by_start_time',
        opt_start_time: time.toISOString(),
      }),
    );
    await this.#jsm.consumers.delete(this.#stream, info.name).catch(() => undefined);
    return info.num_pending === 0 ? undefined : this.get(info.delivered.stream_seq + 1);
  }

  async bounds(): Promise<Bounds> {
    const { state, config } = await this.#link
      .ask(() => this.#jsm.streams.info(this.#stream))
      .catch((error: unknown) => {
        if (error instanceof JetStreamApiError && error.code === streamNotFound)
          throw refused(
            'log_gone',
            `the stream ${this.#stream} is gone`,
            'restore it, or start anew: stop everything, then headwater resnapshot',
          );
        throw error;
      });
    const first = state.messages === 0 ? state.last_seq + 1 : state.first_seq;
    return {
      first,
      last: state.last_seq,
      bytes: state.bytes,
      messages: state.messages,
      epoch: config.metadata?.[epochKey] ?? '',
      epochStart: Number(config.metadata?.[epochStartKey] ?? 1),
    };
  }

  /** Begins a new history on the same stream and returns its epoch. */
  renewEpoch(): Promise<string> {
    return renewEpoch(this.#jsm, this.#stream);
  }

  /** Ends what this object keeps on the connection; the connection itself is its owner's. */
  close(): void {
    this.#link.close();
  }

  async #message(query: { seq: number; next_by_subj?: string } | { last_by_subj: string }): Promise<LogEvent | undefined> {
    try {
      const message = await this.#link.ask(() => this.#jsm.streams.getMessage(this.#stream, query));
      return message ? { seq: message.seq, subject: message.subject, data: message.data } : undefined;
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === noSuchMessage) return undefined;
      throw error;
    }
  }
}

/** The log's sequences have no holes (nothing is deleted, refused batches use none): a hole means that events were trimmed unread. */
function requireContiguous(position: Seq, events: readonly LogEvent[]): void {
  let expected = position;
  for (const { seq } of events) {
    if (seq !== expected)
      throw expected < seq ? new OffsetExpired(expected, seq) : refused('log_regressed', `sequence ${seq} came after ${expected - 1}`);
    expected = seq + 1;
  }
}

/** Does a NATS subject match one of the filters (`*` one token, `>` the rest)? */
export function matchesAny(subject: string, filters: readonly string[]): boolean {
  const tokens = subject.split('.');
  return filters.some((filter) => {
    const wanted = filter.split('.');
    return (
      wanted.every((token, i) => (token === '>' ? tokens.length > i : token === '*' ? i < tokens.length : token === tokens[i])) &&
      (wanted.at(-1) === '>' || wanted.length === tokens.length)
    );
  });
}

/** The server refuses filters of which one covers another. */
export function withoutOverlap(filters: readonly string[]): readonly string[] {
  const distinct = [...new Set(filters)];
  return distinct.filter((filter) => !distinct.some((other) => other !== filter && covers(other, filter)));
}

/** Does every subject that matches `narrow` match `wide`? (`*` does not cover `>`, which stands for several tokens.) */
export function covers(wide: string, narrow: string): boolean {
  return matchesAny(narrow, [wide]) && (!narrow.endsWith('>') || wide.endsWith('>'));
}
