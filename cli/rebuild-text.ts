import type { BesideStatus, Comparison, Difference, FlipPause, RebuildOutcome, RebuildProgress } from '../pipeline/runner/rebuild/model.ts';
import type { Output } from './output.ts';
import { table } from './table.ts';
import { count, plural, shareText, time } from './progress-text.ts';

/** One line on how far a rebuild is: share, speed, and how long it will take. */
export function rebuildLine({ name, phase, seq, first, last, rate, detail }: RebuildProgress, withBar: boolean): string {
  if (phase === 'waiting') return `${name}: ${detail ?? 'starting'}`;
  if (phase === 'comparing') return `${name}: comparing with the live one${detail === undefined ? '' : `: ${detail}`}`;
  if (phase === 'flipping') return `${name}: waiting for the moment to flip, at ${count(seq)}${detail === undefined ? '' : `: ${detail}`}`;
  const parts = [
    `${name} ${shareText((seq - first + 1) / Math.max(1, last - first + 1), withBar)}`,
    `at ${count(seq)} of ${count(last)}`,
    ...(rate === undefined ? [] : [`${count(rate)} events/s`]),
    ...(rate && last > seq ? [`${time((last - seq) / rate)} left`] : []),
  ];
  return `${parts.join(', ')}${detail === undefined ? '' : ` (${detail})`}`;
}

/** What the comparison found, as lines. */
export function comparisonLines(name: string, { compared, differences, listed, moving, apart, uncompared }: Comparison): string[] {
  if (uncompared !== undefined) return [`${name}: not compared: ${uncompared}.`];
  const unsure = moving > 0 ? `; ${count(moving)} changed all the while and could not be judged` : '';
  const offsets = apart === undefined ? '' : `, not at the same offset, since the live one cannot go on: ${apart}`;
  if (differences === 0) return [`${name}: ${count(compared)} compared, no differences${unsure}${offsets}.`];
  const more = differences > listed.length ? [`  … and ${count(differences - listed.length)} more`] : [];
  return [
    `${name}: ${count(compared)} compared, ${plural(differences, 'differs', 'differ')} from the live one${unsure}${offsets}:`,
    ...listed.map(differenceLine),
    ...more,
  ];
}

/** Beyond this a pause of the store is worth a warning, in ms: 100,000 rows of the cache. */
const longPauseMs = 2_500;

/** A warning, when the store will answer nobody for long in the flip. */
export function pauseLines(name: string, { rows, ms }: FlipPause): string[] {
  if (ms < longPauseMs) return [];
  return [
    `${name}: ${count(rows)} rows change places in one call when it is flipped, and the store answers nobody else meanwhile, for about ${time(ms / 1_000)}.` +
      ` \`headwater rebuild ${name} --no-flip\` leaves it beside, and --flip flips it in a quiet hour.`,
  ];
}

function differenceLine({ what, live, beside }: Difference): string {
  return `  ${what}\n    live:    ${live ?? '(not there)'}\n    rebuilt: ${beside ?? '(not there)'}`;
}

/** How it ended, as a sentence. */
export function outcomeLine({ name, flipped, offset, events, seconds }: RebuildOutcome, verb: string): string {
  const done = `${name}: ${plural(events, 'event')} in ${time(seconds)}, at ${count(offset.seq)}.`;
  return flipped
    ? `${done} It is live now. The state of before is kept: ${verb} --drop removes it, --flip goes back to it.`
    : `${done} The live state is as it was: ${verb} --flip flips, --abort removes what has been made.`;
}

/** What stands beside, as columns of text. */
export function statusText(statuses: readonly BesideStatus[], output: Output): string {
  const states = {
    filling: ['not flipped', 'made anew: --flip flips it, --abort removes it'],
    kept: ['kept', 'of before the flip: --flip goes back to it, --drop removes it'],
    dropping: ['dropping', 'being removed'],
  } as const;
  const rows = statuses.map(({ name, state, since, offset, live }) => [
    name,
    states[state][0],
    since,
    offset ? count(offset.seq) : '-',
    live ? count(live.seq) : '-',
    states[state][1],
  ]);
  return table(output, ['REBUILD', 'STATE', 'SINCE', 'AT', 'LIVE AT', ''], rows);
}
