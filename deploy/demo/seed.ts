import type { PgPool, PgPoolClient } from '../../pipeline/clients/postgres.ts';
import { Governance, type Proposal } from './governance.ts';
import { centsText } from './decimals.ts';
import { chains } from './names.ts';
import type { Random } from './random.ts';
import { insert, insertPrices, insertTokens, type Statement } from './statements.ts';
import { createWorld, type Token, type World } from './world.ts';

/** What the market goes on from. */
export interface Start {
  readonly world: World;
  readonly proposals: readonly Proposal[];
  readonly proposalCount: number;
  /** Whether the tables were empty and have been filled. */
  readonly seeded: boolean;
}

/** Fills empty tables, in one transaction; tables that are not empty are gone on with. */
export async function seedOrContinue(pool: PgPool, random: Random): Promise<Start> {
  const world = createWorld();
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    // Two generators at once must not both find the tables empty.
    await client.query('LOCK TABLE public.chains IN SHARE ROW EXCLUSIVE MODE');
    const { rowCount } = await client.query('SELECT FROM public.prices LIMIT 1');
    const seeded = rowCount === 0;
    if (seeded) await run(client, seedStatements(world, random));
    const start = await continued(client, world);
    await client.query('COMMIT');
    return { ...start, seeded };
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  } finally {
    client.release();
  }
}

/** Carries out statements on one connection. */
export async function run(client: PgPoolClient, statements: readonly Statement[]): Promise<void> {
  for (const { text, values } of statements) await client.query(text, [...values]);
}

function seedStatements(world: World, random: Random): Statement[] {
  const governance = new Governance(world, random, [], 0);
  return [
    insert(
      'chains',
      ['slug', 'name', 'native_token'],
      chains.map(({ slug, name, native_token }) => ({ slug, name, native_token })),
    ),
    insert(
      'protocols',
      ['slug', 'name', 'category', 'chain', 'url', 'updated_at'],
      world.protocols.map(({ slug, name, category, chain, url }) => ({
        slug,
        name,
        category,
        chain,
        url,
        updated_at: new Date().toISOString(),
      })),
    ),
    insertTokens(world.tokens),
    insertPrices(world.tokens),
    insert(
      'tvl',
      ['protocol_slug', 'chain', 'tvl_usd', 'updated_at'],
      world.holdings.map(({ protocol, chain, usd }) => ({
        protocol_slug: protocol.slug,
        chain,
        tvl_usd: centsText(usd),
        updated_at: new Date().toISOString(),
      })),
    ),
    governance.open(Date.now(), 12),
  ];
}

/** The state as the database has it: what it has on top of the seed's world is taken in, what it has not is left out. */
async function continued(client: PgPoolClient, seed: World): Promise<Omit<Start, 'seeded'>> {
  const holdings = await client.query<{ protocol_slug: string; chain: string; tvl_usd: string }>(
    'SELECT protocol_slug, chain, tvl_usd::text FROM public.tvl',
  );
  const usd = new Map(holdings.rows.map((row) => [`${row.protocol_slug} ${row.chain}`, Number(row.tvl_usd)]));
  for (const holding of seed.holdings) holding.usd = usd.get(`${holding.protocol.slug} ${holding.chain}`) || holding.usd;
  const proposals = await client.query<{ id: string; state: Proposal['state']; ends_at: Date }>(
    `SELECT id, state, ends_at FROM public.governance_proposals WHERE state = 'active' OR state = 'succeeded' AND ends_at > now() - interval '1 day'`,
  );
  const counted = await client.query<{ count: number }>('SELECT count(*)::int AS count FROM public.governance_proposals');
  return {
    world: { ...seed, tokens: await pricedTokens(client, seed) },
    proposals: proposals.rows.map(({ id, state, ends_at }) => ({ id, state, endsAt: ends_at.getTime() })),
    proposalCount: counted.rows[0]?.count ?? 0,
  };
}

type TokenRow = Pick<Token, 'id' | 'symbol' | 'name' | 'chain' | 'decimals' | 'protocol_slug'> & {
  price: string;
  volume: string | null;
  change: string | null;
};

async function pricedTokens(client: PgPoolClient, seed: World): Promise<Token[]> {
  const { rows } = await client.query<TokenRow>(
    `SELECT t.id, t.symbol, t.name, t.chain, t.decimals, t.protocol_slug, p.price::text, p.volume_24h::text AS volume, p.change_24h::text AS change
     FROM public.tokens t JOIN public.prices p ON p.token_id = t.id`,
  );
  const stored = new Map(rows.map((row) => [row.id, row]));
  const known = seed.tokens.flatMap((token) => {
    const row = stored.get(token.id);
    stored.delete(token.id);
    return row ? [priced(token, row)] : [];
  });
  const listedLater = [...stored.values()].map((row) => {
    const price = Number(row.price);
    const volume = Number(row.volume ?? 1) || 1;
    const walk = { anchor: price, volatility: 1, usualVolume: volume, pricedAtLevel: 0, pricedAt: 0 };
    const { id, symbol, name, chain, decimals, protocol_slug } = row;
    return priced({ id, symbol, name, chain, decimals, protocol_slug, ...walk, price, volume, dayAgo: price }, row);
  });
  return [...known, ...listedLater];
}

function priced(token: Token, row: TokenRow): Token {
  const price = Number(row.price);
  const change = Number(row.change ?? 0);
  return { ...token, price, volume: Number(row.volume ?? 1) || 1, dayAgo: change > -100 ? price / (1 + change / 100) : price };
}
