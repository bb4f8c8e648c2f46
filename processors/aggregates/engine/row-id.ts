/**
 * Ids of rows that sort as text, by code unit, as their keys should: numbers by value, text by code point, column after column.
 */

/** Between the values of a key; Postgres has it in no text. */
const separator = '\0';
const decimal = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,6}))?$/;

/**
 * @param values of the key's columns in key order, as an event's `key` has them
 * @param isNumber does the column at this position hold numbers?
 */
export function sortableId(values: readonly unknown[], isNumber: (position: number) => boolean): string {
  return values.map((value, position) => sortableValue(value, isNumber(position))).join(separator);
}

function sortableValue(value: unknown, isNumber: boolean): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return isNumber || typeof value === 'number' ? (sortableNumber(text) ?? sortableText(text)) : sortableText(text);
}

/** What only code units above the surrogates need: surrogate pairs, which stand for what is larger, must come after them. */
function sortableText(text: string): string {
  return text.replace(/[\uD7FF\uE000-\uFFFF]/g, (char) => {
    const code = char.charCodeAt(0);
    return code === 0xd7ff ? '\uD7FF0' : `\uD7FF1${String.fromCharCode(code - 0x8000)}`;
  });
}

/** Sign, then how many digits stand before the point, then the digits: of negative numbers, their complements. */
function sortableNumber(text: string): string | undefined {
  const match = decimal.exec(text);
  if (!match) return undefined;
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match;
  const all = whole + fraction;
  const digits = all.replace(/^0+/, '').replace(/0+$/, '');
  if (digits === '') return '0';
  const magnitude = whole.length - /^0*/.exec(all)![0].length + Number(exponent);
  if (sign === '') return `p${sortableMagnitude(magnitude)}${digits}`;
  // Behind the complement of all its digits: a longer number of this beginning is the smaller one.
  return `-${sortableMagnitude(-magnitude)}${digits.replace(/\d/g, (digit) => String(9 - Number(digit)))}~`;
}

/** One letter for what is usual, otherwise seven characters. */
function sortableMagnitude(magnitude: number): string {
  if (magnitude >= -12 && magnitude <= 12) return String.fromCharCode('m'.charCodeAt(0) + magnitude);
  return magnitude < 0 ? `A${String(5_000_000 + magnitude)}` : `z${String(5_000_000 + magnitude)}`;
}
