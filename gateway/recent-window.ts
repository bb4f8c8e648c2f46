import type { Seq } from '../pipeline/log/event-log.ts';
import type { ChannelEvent } from './channels.ts';

/** About what an event costs in memory beside its bytes. */
const overheadBytes = 256;
const compactAt = 4_096;

/** The newest events, without a hole between them, up to a number of bytes: replays of the recent past never touch the log. */
export class RecentWindow {
  readonly #maxBytes: number;
  #events: ChannelEvent[] = [];
  /** Those before this index have been evicted. */
  #start = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The oldest event's sequence, or undefined when there is none. */
  get first(): Seq | undefined {
    return this.#events[this.#start]?.seq;
  }

  get last(): Seq | undefined {
    return this.#events.at(-1)?.seq;
  }

  push(event: ChannelEvent): void {
    const { last } = this;
    if (last !== undefined && event.seq !== last + 1) this.clear();
    this.#events.push(event);
    this.#bytes += event.bytes.length + overheadBytes;
    while (this.#bytes > this.#maxBytes && this.#events.length - this.#start > 1) this.#evict();
  }

  clear(): void {
    this.#events = [];
    this.#start = 0;
    this.#bytes = 0;
  }

  /** Is every event from `seq` on, up to the newest, here? */
  covers(seq: Seq): boolean {
    const { first, last } = this;
    return first !== undefined && last !== undefined && seq >= first && seq <= last + 1;
  }

  at(seq: Seq): ChannelEvent | undefined {
    const { first } = this;
    return first === undefined || seq < first ? undefined : this.#events[this.#start + seq - first];
  }

  /** Events from `seq` on, which must be covered: at most `count`, and no more once they have `bytes`; at least one. */
  slice(seq: Seq, count: number, bytes: number): readonly ChannelEvent[] {
    const { first } = this;
    if (first === undefined) return [];
    const begin = this.#start + seq - first;
    const most = Math.min(begin + count, this.#events.length);
    let end = begin;
    for (let size = 0; end < most && size < bytes; end++) size += this.#events[end]!.bytes.length;
    return this.#events.slice(begin, end);
  }

  #evict(): void {
    const event = this.#events[this.#start]!;
    this.#bytes -= event.bytes.length + overheadBytes;
    this.#start++;
    if (this.#start >= compactAt && this.#start * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#start);
      this.#start = 0;
    }
  }
}
