import { expect } from 'chai';
import { amountText, priceText } from '../../deploy/demo/decimals.ts';
import { Market } from '../../deploy/demo/market.ts';
import { seededRandom } from '../../deploy/demo/random.ts';
import type { Statement } from '../../deploy/demo/statements.ts';
import { createWorld } from '../../deploy/demo/world.ts';

const seed = Number(process.env['TEST_SEED'] ?? 42);
const decimal = /^(0|[1-9]\d*)(\.\d+)?$/;

/** Runs the market for some minutes of a clock of its own. */
function observe(minutes: number, onTransaction: (statements: readonly Statement[], at: number, market: Market) => void): Market {
  const start = Date.UTC(2026, 0, 1);
  const market = new Market({ world: createWorld(), random: seededRandom(seed), now: start, proposals: [], proposalCount: 0 });
  for (let at = start; at < start + minutes * 60_000; at += 50) onTransaction(market.next(at), at, market);
  return market;
}

function writes(statements: readonly Statement[], what: RegExp): Statement[] {
  return statements.filter(({ text }) => what.test(text));
}

describe(`the demo market (seed ${seed})`, () => {
  it('has the same tokens and protocols at each start, with ids as their chains write them', () => {
    const [world, again] = [createWorld(), createWorld()];
    expect(again.tokens.map(({ id }) => id)).to.deep.equal(world.tokens.map(({ id }) => id));
    expect(world.tokens.length).to.be.greaterThan(2_000);
    expect(new Set(world.tokens.map(({ id }) => id)).size).to.equal(world.tokens.length);
    for (const { id, chain } of world.tokens)
      expect(id).to.match(chain === 'solana' ? /^solana:[1-9A-HJ-NP-Za-km-z]{43,44}$/ : new RegExp(`^${chain}:0x[0-9a-f]{40}$`));
    expect(new Set(world.protocols.map(({ slug }) => slug)).size).to.equal(200);
    for (const { slug } of world.protocols) expect(slug).to.match(/^[a-z0-9]+(-[a-z0-9]+)*$/);
  });

  it('prices are positive decimals, a few tokens are priced all the time and most hardly ever', () => {
    const counts = new Map<string, number>();
    observe(20, (statements) => {
      for (const { values } of writes(statements, /^UPDATE public\.prices/)) {
        const [ids, prices] = values as [string[], string[]];
        expect(new Set(ids).size).to.equal(ids.length);
        ids.forEach((id, i) => {
          counts.set(id, (counts.get(id) ?? 0) + 1);
          expect(prices[i]).to.match(decimal);
          expect(Number(prices[i])).to.be.greaterThan(0);
        });
      }
    });
    const sorted = [...counts.values()].sort((a, b) => b - a);
    const total = sorted.reduce((sum, count) => sum + count, 0);
    const top = sorted.slice(0, 40).reduce((sum, count) => sum + count, 0);
    expect(top / total, 'share of the 40 most popular').to.be.within(0.25, 0.7);
    expect(counts.size, 'tokens priced at all').to.be.greaterThan(1_000);
  });

  it('transactions are mostly small, with a burst now and then', () => {
    const sizes: number[] = [];
    observe(10, (statements) => sizes.push(statements.reduce((sum, { rows }) => sum + rows, 0)));
    expect(Math.min(...sizes)).to.equal(1);
    expect(Math.max(...sizes)).to.be.greaterThan(30);
    expect(sizes.filter((size) => size <= 5).length / sizes.length).to.be.greaterThan(0.95);
  });

  it('liquidations come when prices fall', () => {
    const liquidations = (crash: boolean): number => {
      let count = 0;
      observe(1, (statements, at, market) => {
        if (crash && at % 60_000 === 0) market.level.startCrash(at);
        count += writes(statements, /INTO public\.liquidations/).length;
      });
      return count;
    };
    expect(liquidations(true))
      .to.be.greaterThan(30)
      .and.greaterThan(5 * liquidations(false));
  });

  it('stays within a believable range for two days of trading', () => {
    const world = createWorld();
    const start = Date.UTC(2026, 0, 1);
    const market = new Market({ world, random: seededRandom(seed), now: start, proposals: [], proposalCount: 0 });
    for (let at = start; at < start + 2 * 86_400_000; at += 2_000) market.next(at);
    expect(Math.abs(market.level.value)).to.be.lessThan(1);
    for (const { symbol, price, anchor, volatility } of world.tokens.slice(0, 20)) {
      expect(price / anchor, symbol).to.be.within(volatility < 0.05 ? 0.97 : 0.05, volatility < 0.05 ? 1.03 : 20);
    }
  });

  it('proposals are opened, voted on, closed when they end, and executed after that', () => {
    const seen = { opened: 0, votes: 0, closed: 0, executed: 0 };
    observe(40, (statements) => {
      seen.opened += writes(statements, /INTO public\.governance/).length;
      seen.votes += writes(statements, /SET votes_/).length;
      seen.closed += writes(statements, /SET state = CASE/).length;
      seen.executed += writes(statements, /SET state = 'executed'/).length;
    });
    for (const [what, count] of Object.entries(seen)) expect(count, what).to.be.greaterThan(5);
  });

  it('writes decimals of the token’s own scale, and prices with the digits they need', () => {
    const random = seededRandom(seed);
    expect(amountText(0.0056, 8, random)).to.equal('0.00560000');
    expect(amountText(1_234.5, 0, random)).to.match(/^123[45]$/);
    expect(amountText(1_234.5, 18, random)).to.match(/^1234\.500000000\d{9}$/);
    expect([43_229.456, 3.25125, 0.5, 0.000011340001, 1e-9].map(priceText)).to.deep.equal([
      '43229.46',
      '3.2513',
      '0.500000',
      '0.00001134000',
      '0.000000001000000',
    ]);
  });
});
