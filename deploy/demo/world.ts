import { address, categories, chains, knownProtocols, knownTokens, protocolName, tokenName } from './names.ts';
import { seededRandom, zipf, type Random } from './random.ts';

/** A protocol; its place in the list is its rank by size. */
export interface Protocol {
  readonly slug: string;
  readonly name: string;
  readonly category: string;
  readonly chain: string;
  readonly url: string;
  /** The chains it runs on, its home first. */
  readonly chains: readonly string[];
}

/** A token and its market. Prices walk geometrically; `anchor` is where they are drawn back to over days. */
export interface Token {
  readonly id: string;
  readonly symbol: string;
  readonly name: string;
  readonly chain: string;
  readonly decimals: number;
  readonly protocol_slug: string | null;
  readonly anchor: number;
  /** Yearly standard deviation of the logarithm of the price. */
  readonly volatility: number;
  readonly usualVolume: number;
  price: number;
  volume: number;
  /** The price that `change_24h` is measured against. */
  dayAgo: number;
  /** The market's level and the time (ms) when this token was last priced. */
  pricedAtLevel: number;
  pricedAt: number;
}

/** What a protocol holds on one chain, in USD. */
export interface Holding {
  readonly protocol: Protocol;
  readonly chain: string;
  readonly usual: number;
  usd: number;
}

/** Everything the generator moves. Tokens are in order of popularity, holdings in order of size. */
export interface World {
  readonly protocols: readonly Protocol[];
  readonly tokens: Token[];
  readonly holdings: readonly Holding[];
}

const tokenCount = 4_000;
const protocolCount = 200;
const popularChain = zipf(chains.length, 1, 1);

/** The world as it is on the first day. The same seed gives the same tokens, protocols and prices. */
export function createWorld(seed = 20_260): World {
  const random = seededRandom(seed);
  const protocols = createProtocols(random);
  return { protocols, tokens: createTokens(random, protocols), holdings: createHoldings(random, protocols) };
}

/** One more token, priced at whatever newcomers cost. */
export function createToken(random: Random, protocols: readonly Protocol[], rank: number): Token {
  const protocol = random.next() < 0.4 ? random.pick(protocols) : undefined;
  const chain = protocol ? random.pick(protocol.chains) : chainOf(random);
  const stable = random.next() < 0.02;
  const { symbol, name } = tokenName(random);
  return token({
    id: `${chain}:${address(random, chain)}`,
    symbol: stable ? `USD${symbol[0]}` : symbol,
    name: stable ? `${name} Dollar` : name,
    chain,
    decimals: random.pick(chain === 'solana' ? [6, 9] : [18, 18, 18, 18, 8, 6]),
    protocol_slug: protocol?.slug ?? null,
    anchor: stable ? 1 : Math.exp(random.normal() * 2.6 - 1.5),
    volatility: stable ? 0.004 : 0.6 + Math.abs(random.normal()) * 0.7,
    usualVolume: usualVolume(rank, random),
  });
}

function createProtocols(random: Random): Protocol[] {
  const protocols: Protocol[] = [];
  const taken = new Set<string>();
  for (let rank = 0; rank < protocolCount; rank++) {
    const known = knownProtocols[rank];
    const { slug, name } = known ? { slug: known[0], name: known[1] } : protocolName(random, taken);
    taken.add(slug);
    const home = /^(jito|kamino|raydium|marinade)/.test(slug) ? 'solana' : known ? 'ethereum' : chainOf(random);
    const others =
      home === 'solana'
        ? []
        : Array.from({ length: random.int(0, rank < 30 ? 6 : 2) }, () => chainOf(random)).filter((chain) => chain !== 'solana');
    protocols.push({
      slug,
      name,
      category: known?.[2] ?? random.pick(categories),
      chain: home,
      url: `https://app.${slug}.example`,
      chains: [...new Set([home, ...others])],
    });
  }
  return protocols;
}

function createTokens(random: Random, protocols: readonly Protocol[]): Token[] {
  const tokens = knownTokens.map(([symbol, name, decimals, anchor, volatility, known], rank) =>
    token({
      id: `ethereum:${known ?? address(random, 'ethereum')}`,
      symbol,
      name,
      chain: 'ethereum',
      decimals,
      protocol_slug: protocols.find((protocol) => protocol.slug.startsWith(symbol.toLowerCase()))?.slug ?? null,
      anchor,
      volatility,
      usualVolume: usualVolume(rank, random),
    }),
  );
  while (tokens.length < tokenCount) {
    const rank = tokens.length;
    tokens.push(
      rank < 120 && random.next() < 0.6
        ? bridged(random, random.pick(tokens.slice(0, knownTokens.length)), rank)
        : createToken(random, protocols, rank),
    );
  }
  return tokens;
}

/** A well-known token on another chain, at almost the same price. */
function bridged(random: Random, original: Token, rank: number): Token {
  const { slug } = random.pick(chains.slice(2));
  return token({ ...original, id: `${slug}:${address(random, slug)}`, chain: slug, usualVolume: usualVolume(rank, random) });
}

function createHoldings(random: Random, protocols: readonly Protocol[]): Holding[] {
  const holdings = protocols.flatMap((protocol, rank) =>
    protocol.chains.map((chain, place) => {
      const usual = (28e9 * Math.exp(random.normal() * 0.3)) / (rank + 1) ** 1.15 / (place + 1) ** 1.6;
      return { protocol, chain, usual, usd: usual };
    }),
  );
  return holdings.sort((a, b) => b.usual - a.usual);
}

type Description = Pick<Token, 'id' | 'symbol' | 'name' | 'chain' | 'decimals' | 'protocol_slug' | 'anchor' | 'volatility' | 'usualVolume'>;

function token({ id, symbol, name, chain, decimals, protocol_slug, anchor, volatility, usualVolume: volume }: Description): Token {
  const market = { price: anchor, volume, dayAgo: anchor, pricedAtLevel: 0, pricedAt: 0 };
  return { id, symbol, name, chain, decimals, protocol_slug, anchor, volatility, usualVolume: volume, ...market };
}

function chainOf(random: Random): string {
  return chains[popularChain(random)]?.slug ?? 'ethereum';
}

function usualVolume(rank: number, random: Random): number {
  return (9e9 * Math.exp(random.normal() * 0.5)) / (rank + 2) ** 1.4;
}
