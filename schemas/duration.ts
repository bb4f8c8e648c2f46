/** Microseconds of each unit, largest first. */
const units: readonly (readonly [unit: string, micros: number])[] = [
  ['d', 86_400_000_000],
  ['h', 3_600_000_000],
  ['m', 60_000_000],
  ['s', 1_000_000],
  ['ms', 1_000],
];

const pattern = /^(\d{1,15})(ms|[smhd])$/;

/** How a duration is written, for messages. */
export const durationForm = 'a duration like 30s, 5m, 1h or 2d';

/** The longest duration that is accepted, in microseconds: 366 days. */
export const longestDuration = 366 * 86_400_000_000;

/**
 * Microseconds of a duration as people write it: a whole number and `ms`, `s`, `m`, `h` or `d`; zero needs no unit.
 * Undefined when the text is none, or is longer than `longest` (default 366 days).
 */
export function parseDuration(text: string, longest = longestDuration): number | undefined {
  if (text === '0') return 0;
  const match = pattern.exec(text);
  if (!match) return undefined;
  const micros = Number(match[1]) * units.find(([unit]) => unit === match[2])![1];
  return micros <= longest ? micros : undefined;
}

/**
 * A duration as text, in the largest unit that holds it whole: `90s`, `1h`, `0s`. `parseDuration` reads it back.
 * @param micros a whole number of milliseconds, from 0
 */
export function printDuration(micros: number): string {
  if (micros === 0) return '0s';
  const [unit, size] = units.find(([, factor]) => micros % factor === 0) ?? ['ms', 1_000];
  return `${micros / size}${unit}`;
}
