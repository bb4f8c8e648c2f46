import type { PgPool } from '../../pipeline/clients/postgres.ts';
import type { Beside } from '../../pipeline/runner/rebuild/model.ts';
import { postgresBeside } from '../../pipeline/runner/rebuild/postgres.ts';
import type { ComparedRows } from '../../pipeline/runner/rebuild/postgres-comparison.ts';
import type { AlertEffects } from './engine/saved.ts';
import { alertEffects } from './store/alert-effects.ts';
import { entitiesQuery } from './store/entity-journal.ts';

const stateTables = ['tables', 'rules', 'episodes', 'entities', 'samples', 'journal'].map((name) => `headwater.alert_state_${name}`);

const records = (table: string, key: string, content = 'record'): ComparedRows['query'] => {
  return (namespace) =>
    `SELECT ROW(${key})::text AS what, ${content}::text AS content FROM headwater.${table} WHERE processor = ${namespace}`;
};

const compared: readonly ComparedRows[] = [
  { name: 'table', query: records('alert_state_tables', 'table_name') },
  { name: 'rule', query: records('alert_state_rules', 'id') },
  { name: 'episode', query: records('alert_state_episodes', 'rule, entity') },
  { name: 'entity', query: entitiesQuery },
  {
    name: 'sample',
    query: records('alert_state_samples', 'table_name, grouping_name, entity, field, look_back, seq', 'ROW(at, value::text)'),
  },
];

/** When the role starts it resolves what no longer holds, and tells so: see `mend-state.ts`. A state that took its place before would leave those alerts firing for ever. */
const mends = ['not_begun', 'epoch_changed', 'offset_expired'];

/** A second state of alerts beside the live one. It writes neither history nor outbox: what has fired was told when it did. */
export function alertsBeside(pool: PgPool, processor: string): Beside<AlertEffects> {
  return postgresBeside({ pool, processor, effects: alertEffects({ silent: true }), tables: stateTables, compared, mends });
}
