import type { Range } from '../../pipeline/replay/range.ts';
import type { ReplayProgress } from '../../pipeline/replay/replay.ts';
import { Speed } from '../../pipeline/runtime/speed.ts';
import { count, plural, shareText, time } from '../progress-text.ts';

/** Tells how far a replay has come: the share, the events, how fast it reads, and how long it will still take. */
export class ReplayMeter {
  readonly #range: Range;
  readonly #withBar: boolean;
  readonly #reading = new Speed();
  readonly #passing = new Speed();

  constructor(range: Range, withBar: boolean) {
    this.#range = range;
    this.#withBar = withBar;
  }

  /** @param now ms of a monotonic clock */
  text({ next, events, read }: ReplayProgress, now: number): string {
    const { first, last } = this.#range;
    // Of a filter by table or kind the log sends nothing else: the share and the time that is left are of all sequences.
    const [reading, passing] = [this.#reading.at(read, now), this.#passing.at(next, now)];
    const parts = [
      shareText(last < first ? 1 : (next - first) / (last - first + 1), this.#withBar),
      plural(events, 'event'),
      ...(reading === undefined ? [] : [`${count(reading)} read/s`]),
      `at sequence ${count(next - 1)} of ${count(last)}`,
      ...(passing ? [`${time(Math.max(0, last + 1 - next) / passing)} left`] : []),
    ];
    return parts.join(', ');
  }
}
