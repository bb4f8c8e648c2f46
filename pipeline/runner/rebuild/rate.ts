import type { Seq } from '../../log/event-log.ts';

const most = 25;

/** Events a second, over the last looks at a sequence. */
export class Rate {
  readonly #looks: { readonly at: number; readonly seq: Seq }[] = [];

  /** Notes where it is now, and says how fast it goes. */
  at(seq: Seq): number {
    this.#looks.push({ at: performance.now(), seq });
    if (this.#looks.length > most) this.#looks.shift();
    const [oldest] = this.#looks;
    return ((seq - oldest!.seq) * 1_000) / Math.max(1, performance.now() - oldest!.at);
  }
}
