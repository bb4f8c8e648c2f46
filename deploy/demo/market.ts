import { address } from './names.ts';
import { centsText } from './decimals.ts';
import { Governance, type Proposal } from './governance.ts';
import { MarketLevel, pace, secondsPerYear } from './level.ts';
import { zipf, type Random } from './random.ts';
import { deleteToken, emission, insert, insertPrices, insertTokens, updateHoldings, updatePrices, type Statement } from './statements.ts';
import { createToken, type Holding, type Token, type World } from './world.ts';

export interface MarketOptions {
  readonly world: World;
  readonly random: Random;
  /** ms since 1970. */
  readonly now: number;
  readonly proposals: readonly Proposal[];
  readonly proposalCount: number;
}

const liquidationColumns = ['protocol_slug', 'chain', 'user_address', 'collateral_token', 'debt_token', 'amount_usd', 'liquidated_at'];
const emissionColumns = ['token_id', 'protocol_slug', 'chain', 'amount', 'value_usd', 'emitted_at'];

/** What happens on the market, transaction by transaction. Touches no database; the same seed and clock give the same. */
export class Market {
  readonly level: MarketLevel;
  readonly #world: World;
  readonly #random: Random;
  readonly #governance: Governance;
  readonly #pickToken: (random: Random) => number;
  readonly #pickHolding: (random: Random) => number;
  readonly #usualTokens: number;

  constructor({ world, random, now, proposals, proposalCount }: MarketOptions) {
    this.#world = world;
    this.#random = random;
    this.level = new MarketLevel(random, now);
    this.#governance = new Governance(world, random, proposals, proposalCount);
    this.#pickToken = zipf(world.tokens.length, 1.05);
    this.#pickHolding = zipf(world.holdings.length, 0.8);
    this.#usualTokens = world.tokens.length;
  }

  /**
   * The statements of the next transaction, never none. Mostly a few prices; `scale` makes the usual ones larger, for
   * high rates.
   */
  next(now: number, scale = 1): readonly Statement[] {
    this.level.advance(now);
    const due = this.#governance.due(now);
    if (due.length > 0) return due;
    const { fear } = this.level;
    if (this.#random.next() < (fear > 0.01 ? Math.min(0.25, fear * 8) : 0.002)) return this.#liquidation(now);
    return this.#usual(now, this.#size(scale));
  }

  #usual(now: number, size: number): readonly Statement[] {
    const dice = this.#random.next() * 100;
    if (dice < 80) return [this.#prices(now, size)];
    if (dice < 90) return [this.#holdings(size)];
    if (dice < 94) return [this.#emissions(size)];
    if (dice < 98) return [this.#governance.vote() ?? this.#governance.open(now)];
    // A round of an oracle: one large transaction.
    if (dice < 98.6) return [this.#prices(now, this.#random.int(40, 120))];
    if (dice < 98.9) return this.#listing(now);
    if (dice < 99.4) return [this.#governance.active < 30 ? this.#governance.open(now) : this.#prices(now, size)];
    return [this.#protocolTouched()];
  }

  #size(scale: number): number {
    const random = this.#random;
    const dice = random.next();
    const usual = dice < 0.6 ? 1 : dice < 0.85 ? random.int(2, 3) : random.int(4, 5);
    return Math.ceil(usual * scale);
  }

  #prices(now: number, size: number): Statement {
    const tokens = this.#distinct(this.#world.tokens, this.#pickToken, size);
    for (const token of tokens) this.#reprice(token, now);
    return updatePrices(tokens);
  }

  /** A geometric walk: the market's move times how closely the token follows it, a move of its own, and a slow way back. */
  #reprice(token: Token, now: number): void {
    const seconds = pace * (token.pricedAt === 0 ? 1 : Math.min(60, Math.max(0, now - token.pricedAt) / 1_000));
    const follows = token.volatility < 0.05 ? 0 : Math.min(1.4, token.volatility / 0.7);
    const level = this.level.value;
    const own = token.volatility * Math.sqrt(seconds / secondsPerYear) * this.#random.normal();
    const away = Math.log(token.price / token.anchor) - follows * level;
    const back = away * (1 - Math.exp(-seconds / (follows === 0 ? 3_600 : 2_000_000)));
    const move = follows * (level - token.pricedAtLevel) + own - back;
    token.price = Math.min(1e7, Math.max(1e-9, token.price * Math.exp(move)));
    token.dayAgo += (token.price - token.dayAgo) * (1 - Math.exp(-seconds / 86_400));
    const volumeMove = 0.01 * this.#random.normal() + Math.min(0.3, 8 * Math.abs(move)) - 0.02 * Math.log(token.volume / token.usualVolume);
    token.volume = Math.max(1, token.volume * Math.exp(volumeMove));
    token.pricedAtLevel = level;
    token.pricedAt = now;
  }

  #holdings(size: number): Statement {
    const holdings = this.#distinct<Holding>(this.#world.holdings, this.#pickHolding, size);
    for (const holding of holdings) {
      const away = Math.log(holding.usd / holding.usual) - this.level.value;
      holding.usd = Math.max(0.01, holding.usd * Math.exp(0.003 * this.#random.normal() - 0.03 * away));
    }
    return updateHoldings(holdings);
  }

  #emissions(size: number): Statement {
    const random = this.#random;
    const tokens = this.#distinct(this.#world.tokens, this.#pickToken, size);
    const rows = tokens.map((token) => {
      const here = this.#world.protocols.filter(({ chains }) => chains.includes(token.chain)).slice(0, 12);
      const slug = token.protocol_slug ?? random.pick(here.length > 0 ? here : this.#world.protocols).slug;
      return emission(token, slug, Math.exp(6 + 1.6 * random.normal()), random);
    });
    return insert('emissions', emissionColumns, rows);
  }

  /** The collateral is priced, and whoever borrowed too much against it is liquidated, in one transaction. */
  #liquidation(now: number): readonly Statement[] {
    const random = this.#random;
    const lenders = this.#world.protocols.filter(({ category }) => category === 'Lending' || category === 'CDP');
    const holders = this.#world.tokens.slice(0, 400);
    const protocol = random.pick(lenders.slice(0, 12));
    const chain = random.pick(protocol.chains);
    const collaterals = holders.filter((token) => token.chain === chain && token.volatility > 0.05);
    const debts = holders.filter((token) => token.chain === chain && token.volatility <= 0.05);
    const collateral = random.pick(collaterals.length > 0 ? collaterals : holders);
    const debt = random.pick(debts.length > 0 ? debts : holders.filter(({ volatility }) => volatility <= 0.05));
    this.#reprice(collateral, now);
    const rows = Array.from({ length: random.int(1, 3) }, () => ({
      protocol_slug: protocol.slug,
      chain,
      user_address: address(random, chain),
      collateral_token: collateral.id,
      debt_token: debt.id,
      amount_usd: centsText(Math.exp(8 + 1.7 * random.normal())),
      liquidated_at: new Date(now).toISOString(),
    }));
    return [updatePrices([collateral]), insert('liquidations', liquidationColumns, rows)];
  }

  /** Now and then a token comes, or one that hardly anybody trades goes. */
  #listing(now: number): readonly Statement[] {
    const { tokens, protocols } = this.#world;
    if (tokens.length <= this.#usualTokens) {
      const token = createToken(this.#random, protocols, tokens.length);
      token.pricedAt = now;
      token.pricedAtLevel = this.level.value;
      tokens.push(token);
      return [insertTokens([token]), insertPrices([token])];
    }
    const [token] = tokens.splice(this.#random.int(Math.floor(tokens.length / 2), tokens.length - 1), 1);
    return token ? deleteToken(token) : [this.#prices(now, 1)];
  }

  #protocolTouched(): Statement {
    const { slug, category } = this.#random.pick(this.#world.protocols);
    return { text: 'UPDATE public.protocols SET category = $2, updated_at = now() WHERE slug = $1', values: [slug, category], rows: 1 };
  }

  /** Some that differ; fewer than asked for when the same popular ones keep coming. */
  #distinct<T>(items: readonly T[], pick: (random: Random) => number, count: number): T[] {
    const found = new Set<T>();
    for (let tries = 0; found.size < count && tries < count * 4; tries++) {
      const item = items[pick(this.#random) % items.length];
      if (item !== undefined) found.add(item);
    }
    return [...found];
  }
}
