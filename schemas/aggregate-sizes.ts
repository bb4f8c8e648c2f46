import { durationForm, parseDuration, printDuration } from './duration.ts';
import type { CatalogAggregate } from './generated/catalog.ts';
import { suggestion } from './nearest.ts';

/** A size of windows: its text in the catalogue, and its microseconds. */
export interface WindowSize {
  readonly text: string;
  readonly micros: number;
}

/** The sizes of an aggregate's windows, checked. */
export interface AggregateSizes {
  /** Shortest first; each is a multiple of the one before. The first are the panes: the windows of the shortest size that sliding ones are made of. */
  readonly levels: readonly (WindowSize & {
    /** How long a window is kept, from its start, in microseconds. */
    readonly keep: number;
  })[];
  readonly sliding: readonly WindowSize[];
}

/** Something wrong with the sizes: below the aggregate, the place and what is to be said of it. */
export interface SizeFault {
  readonly path: readonly string[];
  readonly message: string;
}

/** So many windows of each size are kept when nothing else is said. */
const windowsKept = 10_000;

/**
 * Of `rows` no longer than this, or ten windows, when nothing else is said: for as long as any size is kept, what is known of each row is, and
 * the shorter windows that it is made of.
 */
const rowsKept = 366 * 86_400_000_000;

/** Of `rows`: where the first or last value of a window goes, the next is looked for in all the shorter ones that it is made of. */
const mostParts = 400;

/** More panes would make each answer slow. */
const mostPanes = 20_000;

/** Windows may be kept for a century. */
const longestRetention = 36_525 * 86_400_000_000;

/** The sizes of an aggregate's windows, or all that is wrong with them. */
export function sizesOf(aggregate: CatalogAggregate): { readonly sizes?: AggregateSizes; readonly faults: readonly SizeFault[] } {
  const faults: SizeFault[] = [];
  const windows = durations('windows', aggregate.windows ?? [], faults);
  const sliding = durations('sliding', aggregate.sliding ?? [], faults);
  if (faults.length > 0 || windows.length + sliding.length === 0) return { faults };
  const sorted = windows.toSorted((a, b) => a.micros - b.micros);
  const pane = sorted[0] ?? commonPane(sliding);
  faults.push(...stepFaults(sorted, aggregate.of), ...slidingFaults(sliding, pane));
  const sizes = sorted.length > 0 ? sorted : [pane];
  const levels = retained(aggregate, sizes, sliding, faults);
  return faults.length > 0 ? { faults } : { sizes: { levels, sliding }, faults };
}

function durations(member: 'windows' | 'sliding', texts: readonly string[], faults: SizeFault[]): WindowSize[] {
  const found: WindowSize[] = [];
  texts.forEach((text, i) => {
    const path = [member, String(i)];
    const micros = parseDuration(text);
    const same = found.find((size) => size.micros === micros);
    if (micros === undefined) faults.push({ path, message: `is ${text}, but windows are 366 days long at most` });
    else if (same) faults.push({ path, message: `is ${text}, which is as long as ${same.text}` });
    else found.push({ text, micros });
  });
  return found;
}

/** The longest panes that all of them are made of. */
function commonPane(sliding: readonly WindowSize[]): WindowSize {
  const micros = sliding.map((size) => size.micros).reduce(greatestCommonDivisor);
  return { micros, text: printDuration(micros) };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

function stepFaults(sorted: readonly WindowSize[], of: CatalogAggregate['of']): SizeFault[] {
  return sorted.slice(1).flatMap(({ text, micros }, i) => {
    const shorter = sorted[i]!;
    const path = ['windows'];
    if (micros % shorter.micros !== 0)
      return [{ path, message: `has ${text}, which is no multiple of the next shorter one, ${shorter.text}` }];
    const parts = micros / shorter.micros;
    if (of === 'changes' || parts <= mostParts) return [];
    const times = parts.toLocaleString('en-US');
    return [
      {
        path,
        message: `has ${text}, which is ${times} times the next shorter one, ${shorter.text}; of rows at most ${mostParts} times, so that corrections stay quick: add a size between them`,
      },
    ];
  });
}

function slidingFaults(sliding: readonly WindowSize[], pane: WindowSize): SizeFault[] {
  return sliding.flatMap(({ text, micros }, i) => {
    const path = ['sliding', String(i)];
    const name = `${pane.text}, the shortest size here: sliding windows are made of those`;
    if (micros % pane.micros !== 0) return [{ path, message: `is ${text}, which is no multiple of ${name}` }];
    if (micros / pane.micros <= mostPanes) return [];
    return [{ path, message: `is ${text}, which is more than ${mostPanes.toLocaleString('en-US')} times ${name}` }];
  });
}

function retained(
  { of, retention = {} }: CatalogAggregate,
  sizes: readonly WindowSize[],
  sliding: readonly WindowSize[],
  faults: SizeFault[],
): AggregateSizes['levels'] {
  const known = sizes.map(({ text }) => text);
  for (const text of Object.keys(retention)) {
    if (!known.includes(text))
      faults.push({ path: ['retention', text], message: `is none of the windows${suggestion(text, known) || `: ${known.join(', ')}`}` });
  }
  const longestSliding = sliding.reduce((longest, { micros }) => Math.max(longest, micros), 0);
  const kept = sizes.map(({ text, micros }, i): number => {
    const least = i === 0 ? Math.max(micros, longestSliding) : micros;
    const given = retention[text];
    const most = of === 'rows' ? Math.max(rowsKept, 10 * micros) : Infinity;
    if (given === undefined) return Math.max(Math.min(windowsKept * micros, most), least);
    const keep = parseDuration(given, longestRetention);
    const path = ['retention', text];
    if (keep === undefined) faults.push({ path, message: `is ${given}, but must be ${durationForm}, of 100 years at most` });
    else if (keep < least)
      faults.push({
        path,
        message: `is ${given}, but must be at least ${printDuration(least)}: ${i === 0 && least > micros ? 'sliding windows need it' : 'the window itself'}`,
      });
    return keep ?? 0;
  });
  return sizes.map((size, i) => ({ ...size, keep: kept[i]! }));
}
