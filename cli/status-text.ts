import type { BackfillStatus } from './backfills-status.ts';
import type { Output } from './output.ts';
import { table } from './table.ts';
import type { RebuildStatus } from './rebuilds-status.ts';
import type { Status } from './status.ts';

const mostKeys = 10;
const mostBackfills = 10;

/** The status for a person: tables, then what is wrong. */
export function statusText(status: Status, output: Output): string {
  const { red, green, bold } = output.colors;
  const verdict = status.healthy
    ? green('healthy')
    : `${red(bold('unhealthy'))}\n${status.problems.map((problem) => `  - ${problem}`).join('\n')}`;
  return [
    table(
      output,
      ['PART', 'STATE'],
      [
        ...logRows(status),
        ...slotRows(status),
        ['dead letters', letters(status)],
        ['connections', connected(status)],
        ...alertRows(status),
      ],
    ),
    '',
    ...processors(status, output),
    ...backfills(status, output),
    ...rebuilds(status, output),
    ...keys(status, output),
    verdict,
  ].join('\n');
}

function logRows({ log }: Status): string[][] {
  if (!log) return [['log', 'unknown']];
  return [
    [
      'log',
      log.first > log.last
        ? `empty, next ${number(log.last + 1)}`
        : `${number(log.first)} … ${number(log.last)} (${number(log.messages)} events, ${size(log.bytes)})`,
    ],
    ['epoch', log.epoch],
    ['last event', log.lastAt ?? '–'],
  ];
}

function slotRows({ slot }: Status): string[][] {
  if (!slot) return [['slot', 'none']];
  const state = [
    slot.active ? 'active' : 'not in use',
    `wal_status ${slot.walStatus ?? 'unknown'}`,
    `${size(slot.retainedBytes)} retained`,
  ];
  return [
    [`slot ${slot.name}`, state.join(', ')],
    ['confirmed', slot.confirmedFlushLsn ?? '–'],
  ];
}

function alertRows({ alerts }: Status): string[][] {
  if (!alerts) return [];
  const { rules, pending, firing, outbox, outboxSeconds, undelivered, undeliveredSeconds } = alerts;
  const oldest = (count: number, seconds: number): string => (count === 0 ? '' : `, the oldest ${seconds.toFixed(1)} s old`);
  return [
    ['alert rules', `${number(rules)}: ${number(pending)} pending, ${number(firing)} firing`],
    ['to be planned', number(outbox) + oldest(outbox, outboxSeconds)],
    ['to be delivered', number(undelivered) + oldest(undelivered, undeliveredSeconds)],
  ];
}

function letters({ deadLetters, deadLettersOf = {} }: Status): string {
  if (deadLetters === undefined) return 'unknown';
  const parts = Object.entries(deadLettersOf).map(([name, count]) => `${name} ${number(count)}`);
  return number(deadLetters) + (parts.length > 0 ? `: ${parts.join(', ')}` : '');
}

function processors({ processors: list }: Status, output: Output): string[] {
  if (!list || list.length === 0) return [];
  const rows = list.map(({ name, seq, lagEvents, lagSeconds, building }) => [
    building ? `${name} (being built)` : name,
    number(seq),
    number(lagEvents),
    `${lagSeconds.toFixed(1)} s`,
  ]);
  return [table(output, ['PROCESSOR', 'OFFSET', 'LAG', 'BEHIND'], rows), ''];
}

function backfills({ backfills: list }: Status, output: Output): string[] {
  if (!list || list.length === 0) return [];
  const rows = list.slice(0, mostBackfills).map((backfill) => {
    const { table: name, state, rows: logged, read, total, since } = backfill;
    const share = total > 0 ? ` (${Math.min(99, Math.floor((read / total) * 100))} % of about ${number(total)})` : '';
    return [
      name,
      state === 'pending' ? 'waiting' : state,
      number(logged) + share,
      since === undefined ? '–' : second(since),
      aboutBackfill(backfill),
    ];
  });
  const left = list.length - rows.length;
  const rest = left > 0 ? [`and ${number(left)} more: headwater backfill list has them all`] : [];
  return [table(output, ['BACKFILL', 'STATE', 'ROWS', 'SINCE', ''], rows), ...rest, ''];
}

function aboutBackfill({ state, error, note, where, rate, speed }: BackfillStatus): string {
  if (error !== undefined) return error;
  if (note !== undefined) return note;
  const parts = [
    state === 'running' && speed !== undefined && `${number(speed)} rows/s`,
    rate !== undefined && `at most ${number(rate)} rows/s`,
    where !== undefined && `where ${where}`,
  ];
  return parts.filter(Boolean).join(', ');
}

function rebuilds({ rebuilds: list }: Status, output: Output): string[] {
  if (!list || list.length === 0) return [];
  const at = (seq: number | undefined): string => (seq === undefined ? '–' : number(seq));
  const rows = list.map((rebuild) => [rebuild.name, at(rebuild.seq), at(rebuild.liveSeq), second(rebuild.since), phase(rebuild)]);
  return [table(output, ['REBUILD', 'AT', 'LIVE AT', 'SINCE', ''], rows), ''];
}

/** What it is, and what to do next. */
function phase({ name, state, atWork }: RebuildStatus): string {
  const verb = `headwater rebuild ${name}`;
  if (state === 'kept') return atWork ? 'taking its place again' : `the state of before the flip: ${verb} --drop removes it`;
  if (state === 'dropping') return atWork ? 'being removed' : `half removed: ${verb} --drop goes on`;
  return atWork ? 'in progress' : `waiting: ${verb} goes on and flips it, --abort removes it`;
}

/** A time to the second. */
function second(time: string): string {
  return `${time.slice(0, 19)}Z`;
}

function connected({ connections }: Status): string {
  if (!connections) return 'unknown';
  return `${number(connections.connections)} with ${number(connections.subscriptions)} subscription${connections.subscriptions === 1 ? '' : 's'}`;
}

/** The keys with the most connections. */
function keys({ connections }: Status, output: Output): string[] {
  if (!connections || connections.keys.length === 0) return [];
  const shown = connections.keys.slice(0, mostKeys);
  const rows = shown.map((key) => [key.keyId, number(key.connections), number(key.subscriptions)]);
  const left = connections.keys.length - shown.length;
  const rest = left > 0 ? [`and ${number(left)} more key${left === 1 ? '' : 's'}: status --json has them all`] : [];
  return [table(output, ['KEY', 'CONNECTIONS', 'SUBSCRIPTIONS'], rows), ...rest, ''];
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}

function size(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log(bytes) / Math.log(1024)));
  return `${(bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
