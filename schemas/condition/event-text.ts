import { columnType } from './column-type.ts';
import type { Scalar } from './condition.ts';
import { parseMoment } from './instant.ts';

/**
 * The text of a value as events of the log have it, where a column's type leaves only one: `1.50` for 1.5 in a numeric(10,2), a UUID in
 * lower case. Whatever is compared by its text with events must be written so. Undefined: the type does not tell.
 * @param type as Postgres prints it
 * @param value one that the type does not refuse
 */
export function textInEvents(type: string, value: Scalar): string | undefined {
  const { family, read } = columnType(type);
  const bare = type.replace(/ ?\([^)]*\)/u, '');
  const text = String(value);
  switch (family) {
    case 'number':
      if (bare === 'numeric') {
        const scale = /\(\d+,(\d+)\)/u.exec(type)?.[1];
        return scale === undefined ? undefined : plainDecimal(text, Number(scale));
      }
      if (bare !== 'real' && bare !== 'double precision') return plainDecimal(text, 0);
      return Number.isFinite(Number(text)) ? String(Number(text)) : undefined;
    case 'uuid':
      return text.toLowerCase();
    case 'text':
      return bare === 'character' ? paddedText(text, Number(/\((\d+)\)/u.exec(type)?.[1] ?? 1)) : undefined;
    case 'time':
      return bare === 'time without time zone' ? (read(value) as string) : momentText(bare, text);
    default:
      return undefined;
  }
}

/** The decimal without exponent and with so many digits behind its point; undefined when it has more, or is none. */
function plainDecimal(text: string, scale: number): string | undefined {
  const match = /^([+-]?)(\d*)\.?(\d*)(?:e([+-]?\d{1,3}))?$/iu.exec(text);
  if (!match) return undefined;
  const [, sign, whole = '', fraction = '', exponent = '0'] = match;
  const point = whole.length + Number(exponent);
  const digits = `${'0'.repeat(Math.max(0, -point))}${whole}${fraction}`.padEnd(point, '0');
  const at = Math.max(0, point);
  const behind = digits.slice(at).replace(/0+$/u, '');
  if (behind.length > scale) return undefined;
  const before = digits.slice(0, at).replace(/^0+(?=\d)/u, '') || '0';
  const plain = scale === 0 ? before : `${before}.${behind.padEnd(scale, '0')}`;
  return sign === '-' && /[1-9]/u.test(plain) ? `-${plain}` : plain;
}

function paddedText(text: string, length: number): string {
  const bare = text.replace(/ +$/u, '');
  return bare + ' '.repeat(Math.max(0, length - Array.from(bare).length));
}

/** Within the years that ISO 8601 has; fractions without zeros at their end. */
function momentText(type: string, text: string): string | undefined {
  const instant = parseMoment(text)?.instant;
  const ms = Math.floor(Number(instant) / 1_000);
  if (typeof instant !== 'number' || !(ms >= Date.UTC(1000, 0) && ms < Date.UTC(10_000, 0))) return undefined;
  const iso = new Date(ms).toISOString();
  if (type === 'date') return iso.slice(0, 10);
  const fraction = `${iso.slice(20, 23)}${String(instant - ms * 1_000).padStart(3, '0')}`.replace(/0+$/u, '');
  return `${iso.slice(0, 19)}${fraction === '' ? '' : `.${fraction}`}${type === 'timestamp with time zone' ? 'Z' : ''}`;
}
