import type { LogEvent, Seq } from '../log/event-log.ts';
import type { Holes, Offset } from './state-store.ts';

/** Carries one batch out; throws when it cannot be. */
export type CommitBatch<Effects> = (effects: Effects, expected: Offset, next: Offset, holes: Holes | undefined) => Promise<void>;

interface Filling<Effects> {
  readonly effects: Effects;
  last: Seq;
  events: number;
  bytes: number;
  made: Seq[] | undefined;
  redrive: { readonly name: string; readonly mended: readonly Seq[] } | undefined;
}

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
  #filling: Filling<Effects> | undefined;
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
    return (this.#filling ??= {
      effects: this.#begin(),
      last: this.#stored.seq,
      events: 0,
      bytes: 0,
      made: undefined,
      redrive: undefined,
    }).effects;
  }

  /** Notes that `effects` hold those of redriven events, too; they go out with the next event that is added. */
  redrive(name: string, mended: readonly Seq[]): void {
    void this.effects;
    this.#filling!.redrive = { name, mended };
  }

  /** Counts an event whose effects, if it has any, are in `effects`. `missing`: it went to the dead letters. */
  add(event: LogEvent, missing = false): void {
    void this.effects;
    const batch = this.#filling!;
    batch.last = event.seq;
    batch.events++;
    batch.bytes += event.data.length;
    if (missing) (batch.made ??= []).push(event.seq);
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
        const { effects, last, made, redrive } = this.#filling;
        this.#filling = undefined;
        const next = { ...this.#stored, seq: last, ...(redrive && { redriven: redrive.name }) };
        const holes = made || redrive ? { made: made ?? [], mended: redrive?.mended ?? [] } : undefined;
        await this.#commit(effects, this.#stored, next, holes);
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
