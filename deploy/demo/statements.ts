import { amountText, centsText, priceText } from './decimals.ts';
import type { Random } from './random.ts';
import type { Holding, Token } from './world.ts';

/** Ordinary SQL with its parameters, and how many rows it is meant to write. */
export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
  readonly rows: number;
}

type Row = Readonly<Record<string, string | number | null>>;

/** One INSERT for any number of rows; decimals travel as strings, so none is rounded. */
export function insert(table: string, columns: readonly string[], rows: readonly Row[]): Statement {
  const names = columns.join(', ');
  return {
    text: `INSERT INTO public.${table} (${names}) SELECT ${names} FROM json_populate_recordset(NULL::public.${table}, $1) ON CONFLICT DO NOTHING`,
    values: [JSON.stringify(rows)],
    rows: rows.length,
  };
}

export function insertTokens(tokens: readonly Token[]): Statement {
  return insert(
    'tokens',
    ['id', 'symbol', 'name', 'chain', 'decimals', 'protocol_slug'],
    tokens.map(({ id, symbol, name, chain, decimals, protocol_slug }) => ({ id, symbol, name, chain, decimals, protocol_slug })),
  );
}

export function insertPrices(tokens: readonly Token[]): Statement {
  const rows = tokens.map((token) => ({
    token_id: token.id,
    symbol: token.symbol,
    chain: token.chain,
    ...marketOf(token),
    updated_at: new Date().toISOString(),
  }));
  return insert('prices', ['token_id', 'symbol', 'chain', 'price', 'volume_24h', 'change_24h', 'updated_at'], rows);
}

export function updatePrices(tokens: readonly Token[]): Statement {
  const markets = tokens.map(marketOf);
  return {
    text: `UPDATE public.prices p SET price = n.price, volume_24h = n.volume, change_24h = n.change, updated_at = now()
      FROM unnest($1::text[], $2::numeric[], $3::numeric[], $4::numeric[]) AS n (id, price, volume, change) WHERE p.token_id = n.id`,
    values: [
      tokens.map(({ id }) => id),
      markets.map(({ price }) => price),
      markets.map(({ volume_24h }) => volume_24h),
      markets.map(({ change_24h }) => change_24h),
    ],
    rows: tokens.length,
  };
}

export function deleteToken(token: Token): Statement[] {
  return ['prices WHERE token_id', 'tokens WHERE id'].map((what) => ({
    text: `DELETE FROM public.${what} = $1`,
    values: [token.id],
    rows: 1,
  }));
}

export function updateHoldings(holdings: readonly Holding[]): Statement {
  return {
    text: `UPDATE public.tvl t SET tvl_usd = n.usd, updated_at = now()
      FROM unnest($1::text[], $2::text[], $3::numeric[]) AS n (slug, chain, usd) WHERE t.protocol_slug = n.slug AND t.chain = n.chain`,
    values: [holdings.map(({ protocol }) => protocol.slug), holdings.map(({ chain }) => chain), holdings.map(({ usd }) => centsText(usd))],
    rows: holdings.length,
  };
}

/** A reward of a token, worth `usd` at its present price. */
export function emission(token: Token, protocolSlug: string, usd: number, random: Random): Row {
  return {
    token_id: token.id,
    protocol_slug: protocolSlug,
    chain: token.chain,
    amount: amountText(usd / token.price, token.decimals, random),
    value_usd: centsText(usd),
    emitted_at: new Date().toISOString(),
  };
}

function marketOf({ price, volume, dayAgo }: Token): { price: string; volume_24h: string; change_24h: string } {
  return { price: priceText(price), volume_24h: centsText(volume), change_24h: centsText((price / dayAgo - 1) * 100) };
}
