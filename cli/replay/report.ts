import type { Range } from '../../pipeline/replay/range.ts';
import type { ReplayProgress } from '../../pipeline/replay/replay.ts';
import { bar, count, time } from '../progress-text.ts';

/** The rate is that of the last seconds. */
const spanMs = 5_000;

/** Tells how far a replay has come: a bar, the events, their rate, and how long it will still take. */
export class ReplayMeter {
  readonly #range: Range;
  readonly #withBar: boolean;
  readonly #samples: { at: number; next: number; events: number }[] = [];

  constructor(range: Range, withBar: boolean) {
    this.#range = range;
    this.#withBar = withBar;
  }

  /** @param now ms of a monotonic clock */
  text({ next, events }: ReplayProgress, now: number): string {
    const { first, last } = this.#range;
    const samples = this.#samples;
    samples.push({ at: now, next, events });
    while (samples.length > 2 && samples[1]!.at <= now - spanMs) samples.shift();
    const [oldest] = samples;
    const seconds = (now - oldest!.at) / 1_000;
    const share = last < first ? 1 : Math.min(1, (next - first) / (last - first + 1));
    const speed = seconds > 0 ? (next - oldest!.next) / seconds : 0;
    const parts = [
      `${this.#withBar ? `${bar(share)} ` : ''}${Math.floor(share * 100)} %`,
      `${count(events)} events`,
      ...(seconds > 0 ? [`${count((events - oldest!.events) / seconds)}/s`] : []),
      `at sequence ${count(next - 1)} of ${count(last)}`,
      ...(speed > 0 ? [`${time(Math.max(0, last + 1 - next) / speed)} left`] : []),
    ];
    return parts.join(', ');
  }
}
