/** Sum and average of numerics with the very digits of PostgreSQL (numeric.c), on whole numbers of any size. */

interface Scaled {
  readonly digits: bigint;
  readonly scale: number;
}

function scaled(text: string): Scaled {
  const [whole = '', fraction = ''] = text.split('.');
  return { digits: BigInt(whole + fraction), scale: fraction.length };
}

function printed({ digits, scale }: Scaled): string {
  const text = String(digits < 0n ? -digits : digits).padStart(scale + 1, '0');
  const sign = digits < 0n ? '-' : '';
  return scale === 0 ? sign + text : `${sign}${text.slice(0, -scale)}.${text.slice(-scale)}`;
}

/** What is no number decides alone. */
function special(texts: readonly string[]): string | undefined {
  const up = texts.includes('Infinity');
  const down = texts.includes('-Infinity');
  if (texts.includes('NaN') || (up && down)) return 'NaN';
  return up ? 'Infinity' : down ? '-Infinity' : undefined;
}

function total(texts: readonly string[]): Scaled {
  const all = texts.map(scaled);
  const scale = Math.max(...all.map((one) => one.scale));
  return { digits: all.reduce((sum, one) => sum + one.digits * 10n ** BigInt(scale - one.scale), 0n), scale };
}

export function pgSum(texts: readonly string[]): string {
  return special(texts) ?? printed(total(texts));
}

/** `select_div_scale`: at least 16 significant digits, judged by groups of four digits. */
export function pgAverage(texts: readonly string[]): string {
  const odd = special(texts);
  if (odd !== undefined) return odd;
  const sum = total(texts);
  const count = { digits: BigInt(texts.length), scale: 0 };
  const [a, b] = [firstGroup(sum), firstGroup(count)];
  const weight = a.weight - b.weight - (a.group <= b.group ? 1 : 0);
  const scale = Math.min(1_000, Math.max(16 - weight * 4, sum.scale, 0));
  return printed({ digits: divide(sum.digits * 10n ** BigInt(scale), count.digits * 10n ** BigInt(sum.scale)), scale });
}

/** The first group of four digits that is not zero, and its place: 0 is the one before the point. */
function firstGroup({ digits, scale }: Scaled): { readonly group: number; readonly weight: number } {
  const fractionGroups = Math.ceil(scale / 4);
  const text = String((digits < 0n ? -digits : digits) * 10n ** BigInt(fractionGroups * 4 - scale));
  const padded = text.padStart(Math.ceil(text.length / 4) * 4, '0');
  const group = Number(padded.slice(0, 4));
  return group === 0 ? { group: 0, weight: 0 } : { group, weight: padded.length / 4 - 1 - fractionGroups };
}

/** Half away from zero. */
function divide(a: bigint, b: bigint): bigint {
  const negative = a < 0n;
  const absolute = negative ? -a : a;
  const quotient = (2n * absolute + b) / (2n * b);
  return negative ? -quotient : quotient;
}
