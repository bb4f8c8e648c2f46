import type { DroppedLetter, ListedLetter } from '../../pipeline/runner/redrive/desk.ts';
import type { DeadNotification } from '../../processors/notify/redrive.ts';
import { plain } from '../event-line.ts';
import type { Output } from '../output.ts';
import { plural } from '../progress-text.ts';
import { idOf, notify, tableOf } from './selection.ts';

type Letter = ListedLetter | DroppedLetter;

/** What the table of dead letters has in a line. */
export const heads = ['ID', 'CODE', 'OF', 'TRIES', 'AGE', 'REASON'];

export function letterLine(letter: Letter): readonly string[] {
  const { code, attempts, reason, at, firstAt } = letter;
  const what = 'dropped' in letter ? `dropped: ${letter.dropped.reason}` : reason;
  const asked = 'asked' in letter && letter.asked ? ' (to be redriven)' : '';
  return [idOf(letter), plain(code), plain(tableOf(letter)), String(attempts), age(firstAt ?? at), cut(plain(what)) + asked];
}

export function notificationLine({ id, reason, channel, transition, attempts, at, status, answer }: DeadNotification): readonly string[] {
  const said = [status === null ? '' : String(status), answer === null ? '' : answer].filter(Boolean).join(' ');
  return [`${notify}:${id}`, reason, `${channel}, ${transition}`, String(attempts), age(at.toISOString()), cut(plain(said))];
}

/** For scripts: without the event and the stack, which `show` has. */
export function letterJson(letter: Letter): string {
  const { event: _event, stack: _stack, place: _place, id, ...rest } = letter;
  return JSON.stringify({ id: idOf(letter), table: tableOf(letter), eventId: id, ...rest });
}

export function notificationJson({ id, ...rest }: DeadNotification): string {
  return JSON.stringify({ id: `${notify}:${id}`, processor: notify, ...rest });
}

/** Everything that is known of a letter, for a person. */
export function letterText(letter: Letter, { colors: { bold, red } }: Output): string {
  const { id, code, reason, stack, attempts, at, firstAt, subject, epoch, event } = letter;
  const rows: [string, string][] = [
    ['letter', idOf(letter)],
    ['event', `${id || 'without an id'}${subject === undefined ? '' : ` on ${plain(subject)}`}`],
    ['epoch', epoch ?? 'unknown'],
    ['given up', `${at}, ${age(at)} ago, after ${plural(attempts, 'attempt')}`],
    ...(firstAt === undefined ? [] : ([['first', `${firstAt}; redriven in vain since`]] satisfies [string, string][])),
    ...('asked' in letter && letter.asked
      ? ([['redrive', 'asked for: done as soon as the processor works']] satisfies [string, string][])
      : []),
    ...('dropped' in letter
      ? ([['dropped', `${letter.dropped.at} by ${plain(letter.dropped.by)}: ${plain(letter.dropped.reason)}`]] satisfies [string, string][])
      : []),
  ];
  const trace = (stack ?? '').split('\n').slice(1).map(plain).filter(Boolean);
  return [
    ...rows.map(([name, value]) => `${bold(name.padEnd(9))} ${value}`),
    '',
    `${red(bold(plain(code)))} ${plain(reason)}`,
    ...trace,
    '',
    event
      ? plain(Buffer.from(event).toString('utf8'))
      : 'The event was too large for a letter: `headwater tail --from <sequence> -n 1 --json` has it, while the log holds it.',
  ].join('\n');
}

/** With the event's own bytes, where they are JSON. */
export function letterDetail(letter: Letter): string {
  const { stack, event } = letter;
  const text = event && Buffer.from(event).toString('utf8');
  const head = { ...(JSON.parse(letterJson(letter)) as object), ...(stack !== undefined && { stack }) };
  const body = text === undefined ? 'null' : isJson(text) ? text : JSON.stringify(Buffer.from(event!).toString('base64'));
  return `${JSON.stringify(head).slice(0, -1)},"event":${body}}`;
}

export function notificationText(notification: DeadNotification, { colors: { bold } }: Output): string {
  const { id, userId, alertId, ruleId, transition, channel, target, reason, attempts, at, status, answer } = notification;
  const rows: (readonly [string, string])[] = [
    ['notification', id],
    ['of', alertId === null ? `a digest for ${plain(userId)}` : `alert ${alertId} (${transition}), rule ${ruleId}, user ${plain(userId)}`],
    ['to', `${channel} ${plain(target)}`],
    ['given up', `${reason}, after ${plural(attempts, 'attempt')} since ${at.toISOString()}`],
    ['last answer', [status === null ? '' : String(status), plain(answer ?? 'none')].filter(Boolean).join(' ')],
  ];
  return rows.map(([name, value]) => `${bold(name.padEnd(12))} ${value}`).join('\n');
}

/** `3 dead letters: cache 2, notify 1`. */
export function countsText(counts: ReadonlyMap<string, number>): string {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  if (total === 0) return 'There are no dead letters.';
  return `${plural(total, 'dead letter')}: ${[...counts].map(([name, count]) => `${name} ${count}`).join(', ')}`;
}

/** `42 s`, `3 min`, `5 h`, `12 d`. */
function age(at: string): string {
  const seconds = Math.max(0, (Date.now() - Date.parse(at)) / 1_000);
  if (Number.isNaN(seconds)) return 'unknown';
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

function cut(text: string): string {
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
