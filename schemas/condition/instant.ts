/** Microseconds since 1970 (UTC); a bigint where a double cannot hold them, ±Infinity for Postgres's own infinities. All compare by `<`. */
export type Instant = number | bigint;

const pattern = /^(\d{4,6})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d(?::\d\d)?)?)?)?( BC)?$/;

const daySeconds = 86_400;
/** Days from 4714-11-24 BC, the first that Postgres has, to 1970, and from there to 294276-12-31, the last of a timestamp. */
const [firstDay, lastDay] = [-2_440_588, 106_762_939];

/** What a text says of a moment. */
export interface Moment {
  readonly instant: Instant;
  /** Seconds east of UTC; undefined when the text has no zone, and is taken for UTC. */
  readonly zone: number | undefined;
  readonly hasTime: boolean;
}

/**
 * Reads a date or a timestamp: ISO 8601 (`2026-11-22`, `2026-11-22T12:00:00.5Z`, `…+02:00`), or what Postgres prints for
 * infinities, BC and years over 9999. Undefined when it is none, or outside what Postgres can hold.
 */
export function parseMoment(text: string): Moment | undefined {
  if (text === 'infinity') return { instant: Infinity, zone: undefined, hasTime: false };
  if (text === '-infinity') return { instant: -Infinity, zone: undefined, hasTime: false };
  const match = pattern.exec(text);
  if (!match) return undefined;
  const [hour, minute, second] = [Number(match[4] ?? 0), Number(match[5] ?? 0), Number(match[6] ?? 0)];
  const day = dayOf(match[9] === undefined ? Number(match[1]) : 1 - Number(match[1]), Number(match[2]), Number(match[3]));
  if (day === undefined || Number(match[1]) === 0 || hour > 23 || minute > 59 || second > 59) return undefined;
  const zone = match[8] === undefined ? undefined : zoneSeconds(match[8]);
  if (zone !== undefined && Math.abs(zone) >= 16 * 3_600) return undefined;
  const seconds = day * daySeconds + hour * 3_600 + minute * 60 + second - (zone ?? 0);
  return { instant: micros(seconds, Number((match[7] ?? '').padEnd(6, '0'))), zone, hasTime: match[4] !== undefined };
}

function micros(seconds: number, fraction: number): Instant {
  const exact = seconds * 1_000_000 + fraction;
  return Number.isSafeInteger(exact) ? exact : BigInt(seconds) * 1_000_000n + BigInt(fraction);
}

function zoneSeconds(text: string): number {
  if (text === 'Z') return 0;
  const digits = text.slice(1).replaceAll(':', '');
  const seconds = Number(digits.slice(0, 2)) * 3_600 + Number(digits.slice(2, 4)) * 60 + Number(digits.slice(4, 6));
  return text.startsWith('-') ? -seconds : seconds;
}

/** Days since 1970 of a date in the proleptic Gregorian calendar; year 0 is 1 BC. Undefined when there is no such day. */
function dayOf(year: number, month: number, day: number): number | undefined {
  const date = new Date(0);
  // `Date.UTC` would take the years 0 to 99 for 1900 to 1999, and reaches less far than Postgres: 400 years are 146,097 days.
  const cycles = Math.floor((year - 1970) / 400);
  date.setUTCFullYear(year - cycles * 400, month - 1, day);
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return undefined;
  const days = date.getTime() / 86_400_000 + cycles * 146_097;
  return days >= firstDay && days <= lastDay ? days : undefined;
}
