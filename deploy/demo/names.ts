import type { Random } from './random.ts';

export interface Chain {
  readonly slug: string;
  readonly name: string;
  readonly native_token: string;
}

/** In order of how much happens on them. */
export const chains: readonly Chain[] = [
  { slug: 'ethereum', name: 'Ethereum', native_token: 'ETH' },
  { slug: 'solana', name: 'Solana', native_token: 'SOL' },
  { slug: 'base', name: 'Base', native_token: 'ETH' },
  { slug: 'arbitrum', name: 'Arbitrum', native_token: 'ETH' },
  { slug: 'bsc', name: 'BNB Smart Chain', native_token: 'BNB' },
  { slug: 'polygon', name: 'Polygon', native_token: 'POL' },
  { slug: 'optimism', name: 'Optimism', native_token: 'ETH' },
  { slug: 'avalanche', name: 'Avalanche', native_token: 'AVAX' },
  { slug: 'gnosis', name: 'Gnosis', native_token: 'xDAI' },
  { slug: 'linea', name: 'Linea', native_token: 'ETH' },
  { slug: 'scroll', name: 'Scroll', native_token: 'ETH' },
  { slug: 'zksync', name: 'ZKsync Era', native_token: 'ETH' },
];

/** Well-known tokens: symbol, name, decimals, price in USD, yearly volatility, and the address on Ethereum where it is fixed here. */
export const knownTokens: readonly (readonly [string, string, number, number, number, string?])[] = [
  ['WETH', 'Wrapped Ether', 18, 3009.43, 0.7, '0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2'],
  ['WBTC', 'Wrapped BTC', 8, 64250.5, 0.55, '0x2260fac5e5542a773aa44fbcfedf7c193bc2c599'],
  ['USDC', 'USD Coin', 6, 1, 0.002, '0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48'],
  ['USDT', 'Tether USD', 6, 1, 0.002, '0xdac17f958d2ee523a2206206994597c13d831ec7'],
  ['DAI', 'Dai Stablecoin', 18, 1, 0.003, '0x6b175474e89094c44da98b954eedeac495271d0f'],
  ['wstETH', 'Wrapped liquid staked Ether', 18, 3512.7, 0.7],
  ['LINK', 'ChainLink Token', 18, 14.82, 0.9],
  ['UNI', 'Uniswap', 18, 9.87, 0.95],
  ['AAVE', 'Aave Token', 18, 98.4, 0.9],
  ['LDO', 'Lido DAO Token', 18, 1.92, 1.1],
  ['CRV', 'Curve DAO Token', 18, 0.3127, 1.2],
  ['MKR', 'Maker', 18, 2841.6, 0.9],
  ['ENA', 'Ethena', 18, 0.5538, 1.4],
  ['PENDLE', 'Pendle', 18, 4.37, 1.3],
  ['ARB', 'Arbitrum', 18, 0.8142, 1.1],
  ['OP', 'Optimism', 18, 1.87, 1.1],
  ['GMX', 'GMX', 18, 29.4, 1.1],
  ['PEPE', 'Pepe', 18, 0.00001134, 1.8],
  ['SHIB', 'Shiba Inu', 18, 0.0000175, 1.5],
  ['COMP', 'Compound', 18, 52.3, 1],
];

/** Well-known protocols: slug, name, category. */
export const knownProtocols: readonly (readonly [string, string, string])[] = [
  ['lido', 'Lido', 'Liquid Staking'],
  ['aave-v3', 'Aave V3', 'Lending'],
  ['eigenlayer', 'EigenLayer', 'Restaking'],
  ['uniswap-v3', 'Uniswap V3', 'Dexes'],
  ['makerdao', 'MakerDAO', 'CDP'],
  ['ethena', 'Ethena', 'Basis Trading'],
  ['curve-dex', 'Curve DEX', 'Dexes'],
  ['compound-v3', 'Compound V3', 'Lending'],
  ['morpho', 'Morpho', 'Lending'],
  ['pendle', 'Pendle', 'Yield'],
  ['rocket-pool', 'Rocket Pool', 'Liquid Staking'],
  ['spark', 'Spark', 'Lending'],
  ['balancer-v2', 'Balancer V2', 'Dexes'],
  ['convex-finance', 'Convex Finance', 'Yield'],
  ['gmx-v2', 'GMX V2', 'Derivatives'],
  ['aerodrome', 'Aerodrome', 'Dexes'],
  ['jito', 'Jito', 'Liquid Staking'],
  ['kamino-lend', 'Kamino Lend', 'Lending'],
  ['raydium', 'Raydium', 'Dexes'],
  ['marinade', 'Marinade', 'Liquid Staking'],
  ['pancakeswap-v3', 'PancakeSwap V3', 'Dexes'],
  ['venus', 'Venus', 'Lending'],
  ['yearn-finance', 'Yearn Finance', 'Yield'],
  ['stargate-v2', 'Stargate V2', 'Cross Chain'],
  ['across', 'Across', 'Cross Chain'],
  ['frax-ether', 'Frax Ether', 'Liquid Staking'],
  ['liquity-v2', 'Liquity V2', 'CDP'],
  ['fluid-lending', 'Fluid Lending', 'Lending'],
  ['euler-v2', 'Euler V2', 'Lending'],
  ['velodrome-v2', 'Velodrome V2', 'Dexes'],
];

export const categories: readonly string[] = [
  'Dexes',
  'Lending',
  'Yield',
  'Liquid Staking',
  'CDP',
  'Derivatives',
  'Cross Chain',
  'RWA',
  'Restaking',
  'Options',
];

const firsts =
  'Amber Argo Atlas Aurora Beacon Bramble Cinder Cobalt Comet Coral Crest Delta Drift Ember Fable Falcon Fern Flint Garnet Glacier Granite Harbor Hazel Helix Indigo Juniper Kestrel Lark Lotus Lumen Maple Meridian Mirage Nimbus Nova Ochre Onyx Orbit Osprey Pebble Petal Prism Quartz Quill Raven Ripple Saffron Sage Sable Silt Sierra Slate Solace Sparrow Tandem Tidal Topaz Umber Vesper Willow Zephyr'.split(
    ' ',
  );
const protocolLasts = 'Swap Finance Lend Markets Vaults Protocol Exchange Staking Bridge Perps Reserve Credit Pools Yield'.split(' ');
const tokenLasts = 'Token Coin Dao Inu Cash Network Finance Labs Protocol Gold Share Credit Chain Points'.split(' ');

/** A protocol's name, such as `Cobalt Lend`, of which `taken` has none yet. */
export function protocolName(random: Random, taken: ReadonlySet<string>): { slug: string; name: string } {
  for (;;) {
    const name = `${random.pick(firsts)} ${random.pick(protocolLasts)}${random.next() < 0.12 ? ` V${random.int(2, 3)}` : ''}`;
    const slug = name.toLowerCase().replaceAll(' ', '-');
    if (!taken.has(slug)) return { slug, name };
  }
}

/** A token's name and symbol, such as `Kestrel Dao` and `KEST`. Symbols are not unique, as in the world. */
export function tokenName(random: Random): { symbol: string; name: string } {
  const first = random.pick(firsts);
  const last = random.pick(tokenLasts);
  const consonants = first.toUpperCase().replace(/(?<!^)[AEIOU]/g, '');
  const stem = random.next() < 0.5 ? first.slice(0, random.int(3, 5)).toUpperCase() : consonants.slice(0, 4);
  const prefix = random.next() < 0.08 ? random.pick(['st', 'w', 'x', 'a', 've']) : '';
  return { symbol: `${prefix}${stem}${random.next() < 0.15 ? last[0] : ''}`, name: `${first} ${last}` };
}

const base58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

/** An address as the chain writes them. */
export function address(random: Random, chain: string): string {
  return chain === 'solana' ? random.text(base58, random.int(43, 44)) : `0x${random.text('0123456789abcdef', 40)}`;
}

/** The title of a governance proposal. */
export function proposalTitle(random: Random, number: number, symbols: readonly string[]): string {
  const symbol = random.pick(symbols);
  const subject = random.pick([
    `Adjust risk parameters for ${symbol}`,
    `List ${symbol} as collateral`,
    `Raise the ${symbol} supply cap`,
    `Renew the liquidity incentives for ${symbol}`,
    `Fund the grants programme, season ${random.int(2, 9)}`,
    `Lower the ${symbol} reserve factor to ${random.int(5, 25)} %`,
    `Deploy on ${random.pick(chains).name}`,
    `Elect the risk council, term ${random.int(2, 6)}`,
  ]);
  return `${random.pick(['HIP', 'AIP', 'GIP', 'RFC'])}-${number}: ${subject}`;
}
