import type { LogEvent, Seq } from '../log/event-log.ts';
import type { Offset } from './state-store.ts';

/** Carries one batch out; throws when it cannot be. */
export type CommitBatch<Effects> = (effects: Effects, expected: Offset, next: Offset) => Promise<void>;

export interface BatchLimits {
  readonly events: number;
  readonly bytes: number;
}

/**
 * Group commit: while one batch is on its way, the next one fills. So a single event goes at once when idle, batches are
 * full under load, and there is no timer. At most one commit is under way.
 */
export class GroupCommit<Effects> {
  readonly #begin: () => Effects;
  readonly #commit: CommitBatch<Effects>;
  readonly #limits: BatchLimits;
  /** What is stored, as far as is known. */
  #stored: Offset;
  #filling: { effects: Effects; last: Seq; events: number; bytes: number } | undefined;
  #underWay: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  readonly #onFailure: () => void;

  constructor(parts: { begin: () => Effects; commit: CommitBatch<Effects>; stored: Offset; limits: BatchLimits; onFailure: () => void }) {
    this.#begin = parts.begin;
    this.#commit = parts.commit;
    this.#stored = parts.stored;
    this.#limits = parts.limits;
    this.#onFailure = parts.onFailure;
  }

  get stored(): Offset {
    return this.#stored;
  }

  /** The effects that the next event belongs to. */
  get effects(): Effects {
    return (this.#filling ??= { effects: this.#begin(), last: this.#stored.seq, events: 0, bytes: 0 }).effects;
  }

  /** Counts an event whose effects, if it has any, are in `effects`. */
  add(event: LogEvent): void {
    void this.effects;
    const batch = this.#filling!;
    batch.last = event.seq;
    batch.events++;
    batch.bytes += event.data.length;
  }

  get full(): boolean {
    return this.#filling !== undefined && (this.#filling.events >= this.#limits.events || this.#filling.bytes >= this.#limits.bytes);
  }

  /** Sends what there is, unless a commit is under way: then it follows that one. */
  send(): void {
    if (this.#underWay || this.#failure || !this.#filling?.events) return;
    this.#underWay = this.#drain();
  }

  /** Waits until there is room for more. Throws what made a commit fail. */
  async room(): Promise<void> {
    this.send();
    while (this.full && !this.#failure) await this.#underWay;
    if (this.#failure) throw this.#failure.error;
  }

  /** Waits until everything is committed. Throws what made a commit fail. */
  async flush(): Promise<void> {
    this.send();
    await this.settled();
    if (this.#failure) throw this.#failure.error;
  }

  /** Waits until no commit is under way. */
  async settled(): Promise<void> {
    while (this.#underWay) await this.#underWay;
  }

  async #drain(): Promise<void> {
    try {
      while (this.#filling && this.#filling.events > 0) {
        const { effects, last } = this.#filling;
        this.#filling = undefined;
        const next = { ...this.#stored, seq: last };
        await this.#commit(effects, this.#stored, next);
        this.#stored = next;
      }
    } catch (error) {
      this.#failure = { error };
      this.#onFailure();
    } finally {
      // Not in a later turn: whoever calls `send` from now on must start the next commit.
      this.#underWay = undefined;
    }
  }
}
