import { parseDuration } from '../../../../schemas/duration.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';

/** A definition over `public.trades`, with what is not given filled in. */
export function definition(
  given: Partial<Omit<Definition, 'levels'>> & { readonly sizes?: readonly string[]; readonly keep?: string } = {},
): Definition {
  const { sizes = ['1m', '5m', '1h'], keep = '366d', ...rest } = given;
  return {
    name: 'test',
    table: 'public.trades',
    by: [],
    value: 'price',
    time: 'traded_at',
    of: 'rows',
    levels: sizes.map((text) => ({ text, micros: parseDuration(text)!, keep: parseDuration(keep)! * 10 })),
    windows: sizes,
    sliding: [],
    functions: ['count', 'sum', 'avg', 'min', 'max', 'open', 'high', 'low', 'close', 'p50'],
    percentiles: true,
    hash: 'test',
    ...rest,
  };
}
