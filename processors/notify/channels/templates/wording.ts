import { isDecimal } from '../../../../schemas/decimal.ts';
import type { NoticeAlert, NoticeRule } from '../../channel.ts';
import { oneLine } from '../one-line.ts';

/** How people are spoken to. */
export interface Wording {
  /** BCP 47 tag: how numbers are written. */
  readonly locale: string;
  /** URL with `{alert}` and `{rule}` for their ids; undefined: messages carry no link. */
  readonly link: string | undefined;
}

/** More digits than anybody reads; what Intl can write behind the point. */
const maxNumber = 60;
const maxFraction = 100;

/**
 * A decimal as people of the locale write it: grouped, with their point, and every digit it has. It goes by its text, so digits
 * that a double does not hold are kept; nothing is rounded. Other texts stay as they are, and very long ones end in `…`.
 */
export function number(text: string, locale: string): string {
  const decimal = /^-?\d+(?:\.(\d+))?$/.exec(text);
  if (!decimal || text.length > maxNumber) return oneLine(text, maxNumber);
  const digits = Math.min(decimal[1]?.length ?? 0, maxFraction);
  return new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(text as `${number}`);
}

/** `2026-11-22 20:35:29 UTC` of an ISO 8601 time. */
export function utc(iso: string): string {
  const ms = Date.parse(iso);
  return Number.isNaN(ms) ? oneLine(iso, 40) : new Date(ms).toISOString().replace(/T(.*)\..*$/, ' $1 UTC');
}

/** `3 h 20 min`: the two largest units of the time between two ISO 8601 times. */
export function lasting(from: string, to: string): string {
  let seconds = Math.round((Date.parse(to) - Date.parse(from)) / 1_000);
  if (!(seconds > 0)) return 'less than a second';
  const parts: string[] = [];
  for (const [unit, size] of [
    ['d', 86_400],
    ['h', 3_600],
    ['min', 60],
    ['s', 1],
  ] as const) {
    if (seconds >= size && parts.length < 2) parts.push(`${Math.floor(seconds / size)} ${unit}`);
    else if (parts.length > 0) break;
    seconds %= size;
  }
  return parts.join(' ');
}

/** `token_id weth, chain Base`; empty for a rule that watches one thing only. */
export function entity(alert: NoticeAlert): string {
  const parts = Object.entries(alert.entity).map(([column, value]) => `${oneLine(column, 63)} ${plain(value)}`);
  return oneLine(parts.join(', '), 300);
}

/** The entity's values alone, for a subject: `weth, Base`. */
export function entityValues(alert: NoticeAlert): string {
  return oneLine(Object.values(alert.entity).map(plain).join(', '), 100);
}

function plain(value: unknown): string {
  return oneLine(typeof value === 'string' ? value : (JSON.stringify(value) ?? ''), 100);
}

/** A comparison's operator as a condition prints it, and how to say that it holds. */
const comparisons: Readonly<Record<string, (field: string, value: string, bound: string) => string>> = {
  '>': (field, value, bound) => `${field} is ${value}, above ${bound}`,
  '>=': (field, value, bound) => `${field} is ${value}, at or above ${bound}`,
  '<': (field, value, bound) => `${field} is ${value}, below ${bound}`,
  '<=': (field, value, bound) => `${field} is ${value}, at or below ${bound}`,
  '=': (field, value) => `${field} is ${value}`,
  '!=': (field, value, bound) => `${field} is ${value}, not ${bound}`,
  'CROSSES ABOVE': (field, value, bound) => `${field} rose above ${bound}, to ${value}`,
  'CROSSES BELOW': (field, value, bound) => `${field} fell below ${bound}, to ${value}`,
};

const name = '[\\p{L}_][\\p{L}\\p{M}\\p{N}_$]*|"(?:[^"]|"")+"';
const literal = '-?[\\d.]+(?:e[+-]?\\d+)?|"(?:[^"]|"")*"|TRUE|FALSE';
const single = new RegExp(`^(${name}) (>=|<=|!=|>|<|=|CROSSES ABOVE|CROSSES BELOW) (${literal})$`, 'u');
const changed = new RegExp(`^(${name}) CHANGED$`, 'u');
const percent = new RegExp(`^(${name}) CHANGE (\\S+) (>=|<=|>|<) (-?[\\d.]+)$`, 'u');
const leading = new RegExp(`^(?:\\(|NOT )*(${name})`, 'u');

/**
 * What holds, in words: `price is 104.25, above 100`. A condition of several parts is not retold: then it is the value of its first
 * column alone, which is the one an alert keeps; undefined without one.
 */
export function finding({ value }: NoticeAlert, { condition }: NoticeRule, locale: string): string | undefined {
  const absent = /^ABSENT FOR (\S+)$/.exec(condition);
  if (absent) return `Nothing was heard for ${absent[1]}`;
  if (value === null) return undefined;
  const shown = valueText(value, locale);
  const found = single.exec(condition);
  if (found) return comparisons[found[2]!]!(fieldText(found[1]!), shown, valueText(unquoted(found[3]!), locale));
  const change = changed.exec(condition);
  if (change) return `${fieldText(change[1]!)} changed to ${shown}`;
  const moved = percent.exec(condition);
  if (moved) return `${fieldText(moved[1]!)} is ${shown}; its change in ${moved[2]} is ${bounds[moved[3]!]} ${number(moved[4]!, locale)} %`;
  const first = leading.exec(condition)?.[1];
  return `${first === undefined ? 'The value' : fieldText(first)} is ${shown}`;
}

const bounds: Readonly<Record<string, string>> = { '>': 'above', '>=': 'at or above', '<': 'below', '<=': 'at or below' };

function valueText(text: string, locale: string): string {
  return isDecimal(text) ? number(text, locale) : oneLine(text, 100);
}

function fieldText(field: string): string {
  return oneLine(unquoted(field), 63);
}

function unquoted(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text;
}

const reasons: Readonly<Record<string, string>> = {
  rule_edited: 'the rule was edited',
  rule_disabled: 'the rule was switched off',
  rule_deleted: 'the rule was deleted',
  entity_deleted: 'what it was about is gone',
  epoch_changed: 'the log has begun anew',
};

/** Why it was resolved, when that was not its condition. */
export function resolvedBecause({ reason }: NoticeAlert): string | undefined {
  return reason === undefined ? undefined : reasons[reason];
}

/** The link to an alert, for where it can be followed: http(s) alone, so that nothing else can be made of the ids. */
export function linkTo(alert: NoticeAlert, rule: NoticeRule, { link }: Wording): string | undefined {
  return link?.replaceAll('{alert}', encodeURIComponent(alert.id)).replaceAll('{rule}', encodeURIComponent(rule.id));
}
