// @ts-check
import { inPostgres, parseEvent } from 'headwater/processor';

/**
 * How much was liquidated on each chain and day, kept in PostgreSQL.
 * The effects of a batch: by "chain day", how many and how many dollars, exact, as texts for PostgreSQL to add.
 * @typedef {Map<string, { chain: string, day: string, usd: string[] }>} Sums
 */
export const processor = inPostgres({
  name: 'liquidations-daily',
  subjects: ['ev.public.liquidations.*'],
  // Every event counts by itself: one that is redriven from the dead letters is counted too, though others have come since.
  redrive: { of: 'events' },

  // Tables in the schema "headwater" are never captured. `processor` holds the namespace: a rebuild fills another one beside.
  tables: ['headwater.liquidations_daily'],
  setup: `
    CREATE TABLE IF NOT EXISTS headwater.liquidations_daily (
      processor text, chain text, day date, liquidations bigint NOT NULL, usd numeric NOT NULL, PRIMARY KEY (processor, chain, day));
    CREATE OR REPLACE VIEW headwater.liquidations_daily_live AS
      SELECT chain, day, liquidations, usd FROM headwater.liquidations_daily
      WHERE processor = (SELECT coalesce(namespace, processor) FROM headwater.processor_offsets WHERE processor = 'liquidations-daily')`,

  /** @returns {Sums} */
  begin: () => new Map(),

  apply(event, sums) {
    const liquidation = parseEvent(event);
    // A row that is read by a snapshot or a backfill may have been counted already: with a backfill, rebuild this processor.
    if (!('op' in liquidation) || liquidation.op !== 'insert') return;
    const { chain, amount_usd: usd, liquidated_at: at } = /** @type {Record<string, string>} */ (liquidation.after);
    if (!chain || !usd || !at) throw new Error('a liquidation without chain, amount or time');
    const day = at.slice(0, 10);
    const sum = sums.get(`${chain} ${day}`);
    if (sum) sum.usd.push(usd);
    else sums.set(`${chain} ${day}`, { chain, day, usd: [usd] });
  },

  isEmpty: (sums) => sums.size === 0,

  async write(client, sums, namespace) {
    for (const { chain, day, usd } of sums.values())
      await client.query(
        `INSERT INTO headwater.liquidations_daily AS d
         SELECT $1, $2, $3::date, count(*), sum(amount) FROM unnest($4::numeric[]) AS amount
         ON CONFLICT (processor, chain, day) DO UPDATE SET liquidations = d.liquidations + excluded.liquidations, usd = d.usd + excluded.usd`,
        [namespace, chain, day, usd],
      );
  },
});
