import type { Random } from './random.ts';

/** A price as a decimal string: two places for thousands, four for units, six for tenths, and seven significant digits below. */
export function priceText(price: number): string {
  if (price >= 1_000) return price.toFixed(2);
  if (price >= 1) return price.toFixed(4);
  if (price >= 0.1) return price.toFixed(6);
  return price.toFixed(Math.min(18, 6 - Math.floor(Math.log10(price))));
}

/** US dollars or percent, two places. */
export function centsText(value: number): string {
  return value.toFixed(2);
}

/** An amount with all the places its token has: those beyond what a double holds are made up. */
export function amountText(amount: number, decimals: number, random: Random): string {
  const exact = Math.min(decimals, Math.max(0, 13 - Math.floor(amount).toFixed(0).length));
  const text = amount.toFixed(exact);
  const rest = random.text('0123456789', decimals - exact);
  return rest === '' || text.includes('.') ? text + rest : `${text}.${rest}`;
}
