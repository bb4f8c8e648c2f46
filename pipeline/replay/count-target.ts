import type { LogEvent } from '../log/event-log.ts';
import { nothingSettled, type ReplayTarget, type Settled } from './target.ts';

/** Beyond this, kinds are counted together: a log may have very many subjects. */
const mostKinds = 10_000;

/** Counts what would be replayed, and keeps nothing. */
export class CountTarget implements ReplayTarget {
  /** Events of each subject; those of more than 10,000 are under `*`. */
  readonly subjects = new Map<string, number>();
  #settled: Settled = nothingSettled;

  write(events: readonly LogEvent[]): Promise<void> {
    let bytes = 0;
    for (const { subject, data } of events) {
      const kind = this.subjects.has(subject) || this.subjects.size < mostKinds ? subject : '*';
      this.subjects.set(kind, (this.subjects.get(kind) ?? 0) + 1);
      bytes += data.length;
    }
    const { events: before, bytes: bytesBefore } = this.#settled;
    this.#settled = { through: events.at(-1)?.seq, events: before + events.length, bytes: bytesBefore + bytes };
    return Promise.resolve();
  }

  settle(): Promise<Settled> {
    return Promise.resolve(this.#settled);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
