import { AppendUnclear } from '../../../../pipeline/log/errors.ts';
import type { Bounds, LogEvent, NewEvent, Seq } from '../../../../pipeline/log/event-log.ts';
import { MemoryLog } from '../../../support/memory-log.ts';

/**
 * What happens to one append: `lost` is never stored, `unanswered` is stored but the answer does not come, a number is how
 * many of the events are stored before it breaks off (only where each is published by itself), `late` is stored after the
 * writer has asked for the end of the log once more.
 */
export type Fault = 'none' | 'lost' | 'unanswered' | 'late' | number;

/** A log in memory whose answers get lost. */
export class UnreliableLog extends MemoryLog {
  /** For the appends to come, in order; after the last one all is well. */
  readonly faults: Fault[] = [];
  /** Questions (bounds, get) that fail before one is answered. */
  unansweredQuestions = 0;
  /** Appends that were tried. */
  attempts = 0;
  #late: { events: readonly NewEvent[]; expected: Seq } | undefined;

  override async append(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    this.attempts++;
    const fault = this.faults.shift() ?? 'none';
    await this.#deliverLate();
    if (fault === 'late') this.#late = { events, expected: expectedLastSeq };
    if (fault === 'lost' || fault === 'late' || typeof fault === 'number') throw new AppendUnclear('no answer');
    const seq = await super.append(events, expectedLastSeq);
    if (fault === 'unanswered') throw new AppendUnclear('no answer');
    return seq;
  }

  override async appendEach(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    const fault = this.faults[0];
    if (typeof fault !== 'number') return this.append(events, expectedLastSeq);
    this.attempts++;
    this.faults.shift();
    await this.#deliverLate();
    await super.append(events.slice(0, fault), expectedLastSeq);
    throw new AppendUnclear('no answer');
  }

  override bounds(): Promise<Bounds> {
    return this.unansweredQuestions-- > 0 ? Promise.reject(new Error('no answer')) : super.bounds();
  }

  override get(seq: Seq): Promise<LogEvent | undefined> {
    return this.unansweredQuestions-- > 0 ? Promise.reject(new Error('no answer')) : super.get(seq);
  }

  async #deliverLate(): Promise<void> {
    const late = this.#late;
    this.#late = undefined;
    if (late) await super.append(late.events, late.expected).catch(() => undefined);
  }
}
