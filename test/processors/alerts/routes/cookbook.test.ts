import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NewEvent } from '../../../../pipeline/log/event-log.ts';
import { projectRoot } from '../../../project-root.ts';
import { idText } from '../../../support/row-events.ts';
import { startRest, type Rest } from './support/rest.ts';

const text = readFileSync(join(projectRoot(), 'docs', 'alerts.md'), 'utf8');

/** The recipes of the documentation, by their headings. */
const recipes = text
  .slice(text.indexOf('\n## Cookbook'))
  .split('\n### ')
  .slice(1)
  .map((part): [string, Record<string, unknown>] => [
    part.split('\n', 1)[0]!,
    JSON.parse(/```json\n(.*?)```/s.exec(part)![1]!) as Record<string, unknown>,
  ]);

type Row = Readonly<Record<string, unknown>>;
/** Second, and what a row is then; undefined: only time passes. */
type Step = readonly [second: number, row: Row | undefined];

const eth = { token_id: 'ethereum:0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2', symbol: 'ETH', chain: 'ethereum' };
const [minute, hour] = [60, 3_600];

/** What happens, and which alerts that gives: their states, in order. */
const stories: Readonly<Record<string, readonly [key: readonly string[], steps: readonly Step[], states: readonly string[]]>> = {
  'A price crosses a line': [
    ['token_id'],
    [2999, 3000, 3001, 3002, 2990, 3005].map((price, i): Step => [i, { ...eth, price: String(price) }]),
    ['firing', 'firing'],
  ],
  'A price falls by ten percent within an hour': [
    ['token_id'],
    [
      [0, { ...eth, price: '100' }],
      // An hour ago nothing was known.
      [30 * minute, { ...eth, price: '80' }],
      [31 * minute, { ...eth, price: '100' }],
      [91 * minute, { ...eth, price: '89.9' }],
      [151 * minute, { ...eth, price: '89.8' }],
      [152 * minute, { ...eth, token_id: 'other', price: '5' }],
    ],
    ['resolved'],
  ],
  'A feed falls silent': [
    ['token_id'],
    [
      [0, { ...eth, price: '1' }],
      [9 * minute, { ...eth, price: '1' }],
      [18 * minute, undefined],
      [20 * minute, undefined],
      [21 * minute, { ...eth, price: '1' }],
    ],
    ['resolved'],
  ],
  'A liquidation over a million': [
    ['id'],
    ['999999.99', '1000000', '5', '2500000'].map((amount_usd, i): Step => [i, { id: String(i), protocol_slug: 'aave-v3', amount_usd }]),
    ['firing', 'firing'],
  ],
  'A protocol loses its deposits': [
    ['protocol_slug', 'chain'],
    [
      [0, { protocol_slug: 'aave-v3', chain: 'base', tvl_usd: '100' }],
      [24 * hour, { protocol_slug: 'aave-v3', chain: 'base', tvl_usd: '79' }],
      [24 * hour + 4 * minute, undefined],
      [24 * hour + 6 * minute, undefined],
    ],
    ['firing'],
  ],
  'A proposal is open for votes': [
    ['id'],
    [
      [0, { id: 'p1', protocol_slug: 'aave-v3', state: 'pending' }],
      [1, { id: 'p1', protocol_slug: 'aave-v3', state: 'active' }],
      [2, { id: 'p2', protocol_slug: 'other', state: 'active' }],
      [3, { id: 'p1', protocol_slug: 'aave-v3', state: 'succeeded' }],
    ],
    ['resolved'],
  ],
  'Emissions above what was agreed': [
    ['id'],
    ['60000', '50001', '10', '70000'].map((value_usd, i): Step => [i, { id: String(i), protocol_slug: 'aave-v3', value_usd }]),
    ['firing', 'firing'],
  ],
  'Several columns at once': [
    ['token_id'],
    [
      [0, { ...eth, price: '3000', change_24h: '6', volume_24h: '999999999' }],
      [10, { ...eth, price: '3000', change_24h: '6', volume_24h: '1000000000' }],
      [40, { ...eth, price: '3000', change_24h: '5.1', volume_24h: '1000000001' }],
      [80, { ...eth, price: '3000', change_24h: '6', volume_24h: '1000000001' }],
      [90, { ...eth, price: '900', change_24h: '6', volume_24h: '1000000001' }],
    ],
    ['resolved'],
  ],
  'Any one of many tokens': [
    ['token_id'],
    [
      [0, { token_id: 'a', symbol: 'USDC', price: '0.9899' }],
      [1, { token_id: 'b', symbol: 'DAI', price: '1.02' }],
      [2, { token_id: 'c', symbol: 'FRAX', price: '0.5' }],
      [3, { token_id: 'b', symbol: 'DAI', price: '1.01' }],
    ],
    ['firing', 'resolved'],
  ],
  'A value that flaps': [
    ['token_id'],
    [
      [0, { ...eth, price: '3001' }],
      [4 * minute, { ...eth, price: '2999' }],
      [5 * minute, { ...eth, price: '3001' }],
      [10 * minute, { ...eth, price: '3001' }],
      // Below the line but not clear of it, then clear for too short a time.
      [20 * minute, { ...eth, price: '2950' }],
      [50 * minute, { ...eth, price: '2899' }],
      [60 * minute, { ...eth, price: '2901' }],
      [70 * minute, { ...eth, price: '2899' }],
      [85 * minute, undefined],
    ],
    ['resolved'],
  ],
};

describe('the cookbook of docs/alerts.md', function () {
  this.timeout(120_000);
  let rest: Rest;
  let lsn = 0;
  before(async () => {
    rest = await startRest();
  });
  after(() => rest?.close());

  function eventOf(table: string, key: readonly string[], [second, row]: Step): NewEvent {
    const at = new Date(Date.UTC(2026, 10, 22) + second * 1_000).toISOString().replace('Z', '000Z');
    const id = idText(++lsn);
    const event = row
      ? { v: 1, id, type: 'row', op: 'update', table, key: Object.fromEntries(key.map((name) => [name, row[name]])), after: row, at }
      : { v: 1, id, type: 'tick', at };
    return { subject: `${rest.log.subject}.${row ? `${table}.update` : '_tick'}`, data: Buffer.from(JSON.stringify(event)) };
  }

  it('has ten rules', () => {
    expect(recipes.map(([heading]) => heading)).to.have.members(Object.keys(stories));
    expect(recipes).to.have.length(10);
  });

  for (const [heading, body] of recipes) {
    it(heading, async () => {
      const made = await rest.call('POST', '/v2/alert-rules', body);
      expect(made.status, made.text).to.equal(201);
      const [key, steps, states] = stories[heading]!;
      const { last } = await rest.log.log.bounds();
      await rest.log.log.append(
        steps.map((step) => eventOf(body['table'] as string, key, step)),
        last,
      );
      const rows = steps.filter(([, row]) => row).length;
      const answer = await rest.call('POST', '/v2/alert-rules/test', { id: made.body.id, events: rows });
      expect(answer.status, answer.text).to.equal(200);
      expect(
        (answer.body['alerts'] as { state: string }[]).map(({ state }) => state),
        answer.text,
      ).to.deep.equal(states);
    });
  }

  it('the fault that the page shows is the one that is answered', async () => {
    const shown = JSON.parse(/```json\n(\{\s*"error".*?)```/s.exec(text)![1]!) as object;
    const sent = JSON.parse(/(\{"name": "ETH", .*?\})'/s.exec(text)![1]!) as object;
    expect((await rest.call('POST', '/v2/alert-rules', sent)).body).to.deep.equal(shown);
  });
});
