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

export interface GroupCommitParts<Effects> {
  readonly begin: () => Effects;
  readonly commit: CommitBatch<Effects>;
  readonly stored: Offset;
  readonly limits: BatchLimits;
  /** So many commits may be under way, which `commit` then carries out in their order. */
  readonly mostUnderWay: number;
  readonly onFailure: () => void;
}

/**
 * Group commit: while one batch is on its way, the next one fills, and follows when it is full or the one before has arrived. So a single event goes at once when idle, batches are
 * full under load, and there is no timer.
 */
export class GroupCommit<Effects> {
  readonly #parts: GroupCommitParts<Effects>;
  /** What is stored, as far as is known. */
  #stored: Offset;
  /** What will be stored when all that is under way has arrived. */
  #sent: Offset;
  #filling: Filling<Effects> | undefined;
  /** Oldest first; they end in this order. */
  readonly #underWay: Promise<void>[] = [];
  #failure: { readonly error: unknown } | undefined;

  constructor(parts: GroupCommitParts<Effects>) {
    this.#parts = parts;
    this.#stored = parts.stored;
    this.#sent = parts.stored;
  }

  get stored(): Offset {
    return this.#stored;
  }

  /** The effects that the next event belongs to. */
  get effects(): Effects {
    return (this.#filling ??= {
      effects: this.#parts.begin(),
      last: this.#sent.seq,
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
    const { events, bytes } = this.#parts.limits;
    return this.#filling !== undefined && (this.#filling.events >= events || this.#filling.bytes >= bytes);
  }

  /** Sends what there is, unless it has to wait for commits that are under way: then it follows them. */
  send(): void {
    const batch = this.#filling;
    if (this.#failure || !batch || batch.events === 0) return;
    if (this.#underWay.length >= (this.full ? this.#parts.mostUnderWay : 1)) return;
    this.#filling = undefined;
    this.#underWay.push(this.#carryOut(batch));
  }

  /** Waits until there is room for more. Throws what made a commit fail. */
  async room(): Promise<void> {
    this.send();
    while (this.full && !this.#failure) await this.#underWay[0];
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
    while (this.#underWay.length > 0) await this.#underWay[0];
  }

  async #carryOut({ effects, last, made, redrive }: Filling<Effects>): Promise<void> {
    const expected = this.#sent;
    const next = { ...expected, seq: last, ...(redrive && { redriven: redrive.name }) };
    this.#sent = next;
    try {
      const holes = made || redrive ? { made: made ?? [], mended: redrive?.mended ?? [] } : undefined;
      await this.#parts.commit(effects, expected, next, holes);
      this.#stored = next;
    } catch (error) {
      this.#failure ??= { error };
      this.#parts.onFailure();
    } finally {
      // Not in a later turn: whoever calls `send` from now on must start the next commit.
      void this.#underWay.shift();
      this.send();
    }
  }
}
