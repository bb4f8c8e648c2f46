import type { DroppedLetter, ListedLetter } from '../../pipeline/runner/redrive/desk.ts';
import { usage } from '../../pipeline/runtime/errors.ts';
import { choice, duration, text } from '../../pipeline/runtime/setting-types.ts';
import { decodeToken } from '../../schemas/subjects.ts';
import type { DeadLetterFilter } from '../../processors/notify/redrive.ts';
import type { Verb } from '../verb.ts';

/** Notifications that were given up are dead letters, too; they are in the database. */
export const notify = 'notify';

/** So many lines are shown when nobody has said how many. */
export const shownAtOnce = 100;

/** How an operator says which dead letters. */
export interface SelectionOptions {
  readonly processor?: string;
  readonly code?: string;
  readonly table?: string;
  readonly match?: string;
  readonly older?: number;
  readonly newer?: number;
  readonly channel?: 'webhook' | 'email' | 'push';
  readonly user?: string;
  readonly rule?: string;
  readonly all?: boolean;
}

/** Which dead letters of the log's processors: undefined for none of them. */
export interface LetterSelection {
  readonly processor: string | undefined;
  /** `<processor>:<seq>`; undefined for all that match. */
  readonly ids: ReadonlySet<string> | undefined;
  matches(letter: ListedLetter | DroppedLetter): boolean;
}

export interface Selection {
  readonly letters: LetterSelection | undefined;
  /** Which notifications: undefined for none. */
  readonly notifications: DeadLetterFilter | undefined;
  /** Is it everything that there is of a kind, or meets a condition, rather than what was named one by one? */
  readonly wide: boolean;
}

const reasons = ['failed', 'gone', 'expired'] as const;

/** The options that `selectionOf` understands. */
export function selectionOptions(verb: Verb): Verb {
  return verb
    .value('--code <code>', 'only those that failed with this code; of notifications: failed, gone or expired', text.parse)
    .value('--table <name>', 'only events of this table: <schema>.<table>, or a name in "public"', text.parse)
    .value('--match <text>', 'only those whose reason holds this text', text.parse)
    .value('--older <duration>', 'only those given up at least so long ago, such as 1h', duration.parse)
    .value('--newer <duration>', 'only those given up at most so long ago', duration.parse)
    .value('--channel <name>', 'only notifications of this channel: webhook, email or push', choice('webhook', 'email', 'push').parse)
    .value('--user <id>', 'only notifications to this user', text.parse)
    .value('--rule <id>', 'only notifications of this alert rule', uuid);
}

/**
 * @param ids as `dlq list` shows them
 * @throws HeadwaterError (usage) with everything that makes no sense
 */
export function selectionOf(ids: readonly string[], options: SelectionOptions): Selection {
  const { processor, code, table, match, older, newer, channel, user, rule, all } = options;
  const ofLetters = table !== undefined || match !== undefined;
  const ofNotifications = channel !== undefined || user !== undefined || rule !== undefined;
  const filtered = ofLetters || ofNotifications || code !== undefined || older !== undefined || newer !== undefined;
  const faults = ids
    .filter((id) => !isId(id))
    .map((id) => `'${id}' is no dead letter: they are called <processor>:<sequence>, or notify:<id>`);
  if (ofLetters && ofNotifications) faults.push('--table and --match are of events, --channel, --user and --rule of notifications');
  if (processor === notify && ofLetters) faults.push(`--table and --match are of events, not of notifications`);
  if (processor !== undefined && processor !== notify && ofNotifications)
    faults.push(`--channel, --user and --rule are of notifications, not of ${processor}`);
  if (ids.length > 0 && (filtered || all || processor !== undefined)) faults.push('name letters, or give conditions, not both');
  if (processor === notify && code !== undefined && !isReason(code))
    faults.push(`--code of a notification is ${reasons.join(', ')} (it is '${code}')`);
  if (faults.length > 0) throw usage('bad_arguments', faults.join('\n'), '`headwater dlq list` shows what there is');

  if (ids.length > 0) {
    const jobs = ids.filter((id) => id.startsWith(`${notify}:`)).map((id) => id.slice(notify.length + 1));
    const letters = new Set(ids.filter((id) => !id.startsWith(`${notify}:`)));
    const processors = new Set([...letters].map((id) => id.slice(0, id.lastIndexOf(':'))));
    const [only] = processors.size === 1 ? processors : [undefined];
    return {
      letters: letters.size === 0 ? undefined : { processor: only, ids: letters, matches: (letter) => letters.has(idOf(letter)) },
      notifications: jobs.length === 0 ? undefined : { ids: jobs },
      wide: false,
    };
  }
  const [before, since] = [timeAgo(older), timeAgo(newer)];
  const name = table === undefined ? undefined : tableName(table);
  const matches = (letter: ListedLetter | DroppedLetter): boolean => {
    const at = Date.parse(letter.firstAt ?? letter.at);
    return (
      (code === undefined || letter.code === code) &&
      (name === undefined || tableOf(letter) === name) &&
      (match === undefined || letter.reason.includes(match)) &&
      (before === undefined || at < before.getTime()) &&
      (since === undefined || at >= since.getTime())
    );
  };
  return {
    letters: processor === notify || ofNotifications ? undefined : { processor, ids: undefined, matches },
    notifications:
      (processor !== undefined && processor !== notify) || ofLetters || (code !== undefined && !isReason(code))
        ? undefined
        : {
            ...(isReason(code) && { reason: code }),
            ...(channel && { channel }),
            ...(user !== undefined && { userId: user }),
            ...(rule !== undefined && { ruleId: rule }),
            ...(before && { before }),
            ...(since && { since }),
          },
    wide: true,
  };
}

/**
 * To change something, one has to say what: letters, a condition, or `--all`. Notifications are changed only where they are named as such: to
 * send them again is another thing than to apply an event.
 */
export function changeOf(ids: readonly string[], options: SelectionOptions): Selection {
  const { all, ...conditions } = options;
  const said = ids.length > 0 || all === true || Object.values(conditions).some((value) => value !== undefined);
  if (!said)
    throw usage(
      'bad_arguments',
      'say which dead letters: name them, give a condition, or --all',
      '`headwater dlq list` shows what there is',
    );
  const selection = selectionOf(ids, options);
  const named = ids.length > 0 || selection.letters === undefined;
  return named ? selection : { ...selection, notifications: undefined };
}

/** What a letter is called. */
export function idOf({ processor, seq }: { readonly processor: string; readonly seq: number }): string {
  return `${processor}:${seq}`;
}

/** `<schema>.<table>` of a table as an operator names it. */
export function tableName(table: string): string {
  return table.includes('.') ? table : `public.${table}`;
}

/** `<schema>.<table>` of a row's event; otherwise what kind of event it is. */
export function tableOf({ subject }: { readonly subject?: string }): string {
  const [, first = '', second = '', ...rest] = (subject ?? '').split('.');
  if (first.startsWith('_') && ['_schema', '_message', '_mark', '_tick'].includes(first))
    return [first, second, ...rest].filter(Boolean).map(decodeToken).join('.');
  return second === '' ? '' : `${decodeToken(first)}.${decodeToken(second)}`;
}

function isId(id: string): boolean {
  return id.startsWith(`${notify}:`) ? id.length > notify.length + 1 : /^[\w.-]+:[1-9]\d{0,15}$/.test(id);
}

function isReason(code: string | undefined): code is (typeof reasons)[number] {
  return (reasons as readonly (string | undefined)[]).includes(code);
}

function timeAgo(ms: number | undefined): Date | undefined {
  return ms === undefined ? undefined : new Date(Date.now() - ms);
}

function uuid(value: string): string {
  if (/^[\da-f]{8}-([\da-f]{4}-){3}[\da-f]{12}$/i.test(value)) return value;
  throw new Error('must be the id of a rule');
}
