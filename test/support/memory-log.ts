import { EventEmitter, once } from 'node:events';
import { AppendConflict, OffsetExpired } from '../../pipeline/log/errors.ts';
import { refused } from '../../pipeline/runtime/errors.ts';
import type { Bounds, EventLog, LogEvent, NewEvent, ReadOptions, Seq } from '../../pipeline/log/event-log.ts';

/** The log in memory, with the faults that a test may want: trimming, another epoch, a reader that waits. */
export class MemoryLog implements EventLog {
  epoch = 'epoch-1';
  epochStart: Seq = 1;
  /** Readings that have begun, by their start. */
  readonly reads: Seq[] = [];
  readonly #events: LogEvent[] = [];
  #first = 1;
  readonly #grown = new EventEmitter().setMaxListeners(0);

  get head(): Seq {
    return this.#events.length;
  }

  append(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    if (expectedLastSeq !== this.head) return Promise.reject(new AppendConflict(expectedLastSeq, `it ends at ${this.head}`));
    for (const event of events) this.#events.push({ ...event, seq: this.head + 1 });
    this.#grown.emit('grown');
    return Promise.resolve(this.head);
  }

  appendEach(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    return this.append(events, expectedLastSeq);
  }

  /** Forgets everything before `first`. */
  trim(first: Seq): void {
    this.#first = first;
  }

  async *read(from: Seq, { signal, subjects }: ReadOptions = {}): AsyncGenerator<readonly LogEvent[], void, undefined> {
    this.reads.push(from);
    if (from > this.head + 1) throw refused('log_regressed', `the log ends at ${this.head}, before the reader's position ${from}`);
    for (let next = Math.max(1, from); !signal?.aborted;) {
      if (next < this.#first) throw new OffsetExpired(next, this.#first);
      const events = this.#events.slice(next - 1, next - 1 + 500);
      if (events.length === 0) {
        await once(this.#grown, 'grown', signal ? { signal } : {}).catch(() => undefined);
        continue;
      }
      next = events.at(-1)!.seq + 1;
      const wanted = subjects ? events.filter((event) => subjects.some((subject) => matchesSubject(event.subject, subject))) : events;
      if (wanted.length > 0) yield wanted;
      await Promise.resolve();
    }
  }

  get(seq: Seq): Promise<LogEvent | undefined> {
    return Promise.resolve(seq < this.#first ? undefined : this.#events[seq - 1]);
  }

  last(subject = '>'): Promise<LogEvent | undefined> {
    return Promise.resolve(this.#held().findLast((event) => matchesSubject(event.subject, subject)));
  }

  lastPerSubject(subject: string): Promise<readonly LogEvent[]> {
    const last = new Map(
      this.#held()
        .filter((event) => matchesSubject(event.subject, subject))
        .map((event) => [event.subject, event]),
    );
    return Promise.resolve([...last.values()].sort((a, b) => a.seq - b.seq));
  }

  firstSince(): Promise<LogEvent | undefined> {
    return Promise.reject(new Error('the memory log keeps no stream times'));
  }

  bounds(): Promise<Bounds> {
    const held = this.#held();
    return Promise.resolve({
      first: this.#first,
      last: this.head,
      epoch: this.epoch,
      epochStart: this.epochStart,
      bytes: held.reduce((sum, { data }) => sum + data.length, 0),
      messages: held.length,
    });
  }

  #held(): readonly LogEvent[] {
    return this.#events.slice(this.#first - 1);
  }
}

function matchesSubject(subject: string, pattern: string): boolean {
  const tokens = subject.split('.');
  const wanted = pattern.split('.');
  return (
    wanted.every((token, i) => (token === '>' ? tokens.length > i : token === '*' || token === tokens[i])) &&
    (wanted.at(-1) === '>' || wanted.length === tokens.length)
  );
}
