import { mostListed, type Comparison, type Difference } from './model.ts';

/** What a comparison has found so far. */
export class Findings {
  compared = 0;
  moving = 0;
  #differences = 0;
  readonly #listed: Difference[] = [];

  get differences(): number {
    return this.#differences;
  }

  get comparison(): Comparison {
    const { compared, moving, differences } = this;
    return { compared, differences, listed: this.#listed, moving };
  }

  /** @param describe asked of the first ones only */
  async add(describe: () => Promise<Difference>): Promise<void> {
    this.#differences++;
    if (this.#listed.length < mostListed) this.#listed.push(await describe());
  }
}
