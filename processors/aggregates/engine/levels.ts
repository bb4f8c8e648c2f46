import type { Definition, Micros } from '../model.ts';
import { keptFor } from './retention.ts';

/** The arithmetic of a definition's windows. */
export class Levels {
  readonly count: number;
  readonly #micros: readonly Micros[];
  readonly #kept: readonly Micros[];

  constructor(definition: Definition) {
    this.count = definition.levels.length;
    this.#micros = definition.levels.map(({ micros }) => micros);
    this.#kept = keptFor(definition);
  }

  /** The index of the window of a level that a time is in. */
  indexOf(level: number, at: Micros): number {
    const micros = this.#micros[level]!;
    const index = Math.floor(at / micros);
    // The quotient is rounded: far from 1970 a time just before a window could be counted as in it.
    return index * micros > at ? index - 1 : index;
  }

  isExpired(level: number, index: number, logTime: Micros): boolean {
    return index * this.#micros[level]! + this.#kept[level]! <= logTime;
  }

  /** The oldest window of each level that is not expired. */
  oldestAt(logTime: Micros): readonly number[] {
    return this.#kept.map((kept, level) => this.indexOf(level, logTime - kept) + 1);
  }

  /** How many windows of the level below a window of this one consists of. */
  ratio(level: number): number {
    return this.#micros[level]! / this.#micros[level - 1]!;
  }
}
