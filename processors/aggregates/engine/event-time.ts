import type { Micros } from '../model.ts';

const dash = 45;
const colon = 58;
const dayMicros = 86_400_000_000;

/**
 * Microseconds since 1970 of `2016-11-04T11:51:30.123456Z`, of the same without `Z` (taken as UTC), or of a date. Undefined for
 * everything else that Postgres can print (infinities, BC, years over 9999), and for years that doubles do not hold to
 * the microsecond (before 1685, after 2254).
 */
export function parseEventTime(text: string): Micros | undefined {
  const { length } = text;
  if (length < 10 || text.charCodeAt(4) !== dash || text.charCodeAt(7) !== dash) return undefined;
  const days = daysOf(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10));
  let micros = days * dayMicros;
  if (length > 10) {
    const end = text.endsWith('Z') ? length - 1 : length;
    if (end < 19 || text[10] !== 'T' || text.charCodeAt(13) !== colon || text.charCodeAt(16) !== colon) return undefined;
    const seconds = digits(text, 11, 13) * 3_600 + digits(text, 14, 16) * 60 + digits(text, 17, 19);
    micros += seconds * 1_000_000 + (end > 19 ? fraction(text, end) : 0);
  }
  return Number.isSafeInteger(micros) ? micros : undefined;
}

function fraction(text: string, end: number): number {
  if (text[19] !== '.' || end < 21 || end > 26) return NaN;
  return digits(text, 20, end) * 10 ** (26 - end);
}

/** The number that these digits write; NaN when there is something else. */
function digits(text: string, start: number, end: number): number {
  let number = 0;
  for (let i = start; i < end; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return NaN;
    number = number * 10 + digit;
  }
  return number;
}

/** Days since 1970 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms"). */
function daysOf(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719_468;
}
