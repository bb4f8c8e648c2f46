import type { Definition, Micros } from '../model.ts';

/**
 * How long the store keeps the windows of each level, from their start, in log time. Of `rows` a window is kept for as long as
 * any longer one that it is part of may be: when an extreme of that goes, the next is looked for in its parts.
 */
export function keptFor({ levels, of }: Definition): readonly Micros[] {
  return levels.map(({ keep }, level) => (of === 'changes' ? keep : Math.max(...levels.slice(level).map((longer) => longer.keep))));
}
