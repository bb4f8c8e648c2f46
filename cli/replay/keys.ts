import type { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import type { Range } from '../../pipeline/replay/range.ts';
import { versionsOf } from '../../pipeline/replay/row-condition.ts';
import { rowOps } from '../../pipeline/replay/row-ops.ts';
import { usage } from '../../pipeline/runtime/errors.ts';
import { columnType } from '../../schemas/condition/column-type.ts';
import { decodeRowKey } from '../../schemas/row-key.ts';
import { tableToken, type TableName } from '../../schemas/subjects.ts';
import { plural } from '../progress-text.ts';

/** Where the tables' columns are looked up. */
interface Place {
  readonly eventLog: JetStreamLog;
  /** First token of the log's subjects. */
  readonly subject: string;
  readonly range: Range;
}

/** The columns of a primary key, with their types as far as they are known; empty without one. */
type KeyColumns = ReadonlyMap<string, string | undefined>;

/**
 * A key that no chosen table can have would find nothing, and say so with success. Where the log does not tell a table's columns, any key may be of it.
 * @throws HeadwaterError `bad_key` (usage)
 */
export async function requireFittingKeys(keys: readonly string[], tables: readonly TableName[], place: Place): Promise<void> {
  const known = await Promise.all(tables.map(async (table) => ({ table, forms: await formsOf(table, place) })));
  if (known.some(({ forms }) => forms.length === 0)) return;
  const unfit = keys.filter((key) => !known.some(({ forms }) => forms.some((form) => fits(key, form))));
  if (unfit.length === 0) return;
  const needed = known.map(({ table, forms }) => `${table.schema}.${table.table} has ${keyText(forms.at(-1)!)}`).join('; ');
  throw usage(
    'bad_key',
    unfit.map((key) => `--key '${key}' can be no row's: ${needed}`).join('\n'),
    known.every(({ forms }) => forms.at(-1)!.size === 0)
      ? 'leave --key out; --where finds rows by any of their columns'
      : 'give a value for each of these columns, in this order, joined by ":"; within a value, %3A is a ":" and %25 a "%"',
  );
}

/**
 * The primary keys that a table has had up to the end of the range, the last one last. Empty when they cannot be told: the columns of its oldest
 * rows are no longer in the log.
 */
async function formsOf(table: TableName, { eventLog, subject, range }: Place): Promise<readonly KeyColumns[]> {
  const versions = await versionsOf(eventLog, subject, table, range.last);
  const rows = `${subject}.${tableToken(table.schema, table.table)}`;
  const oldest = await eventLog.nextOf(`${rows}.*`, range.first);
  const last = versions.at(-1);
  if (!last || (oldest && oldest.seq < versions[0]!.seq)) return [];
  const forms = versions.map(({ columns, key }) => new Map(key.map((name) => [name, columns.get(name)])));
  // An event has them in the key's order, and also those that the catalogue leaves out of rows.
  const told = await Promise.all(rowOps.filter((op) => op !== 'truncate').map((op) => eventLog.last(`${rows}.${op}`)));
  const row = told.filter((event) => event !== undefined).sort((a, b) => b.seq - a.seq)[0];
  const { key } = row ? (JSON.parse(Buffer.from(row.data).toString('utf8')) as { readonly key?: object }) : {};
  return key ? [...forms, new Map(Object.keys(key).map((name) => [name, last.columns.get(name)]))] : forms;
}

function fits(key: string, form: KeyColumns): boolean {
  if (decodeRowKey(key)?.length === form.size) return true;
  // A key of one column may stand there as it is; of some types no value has a colon in it.
  const [only] = form.values();
  return form.size === 1 && !key.includes('%') && !withoutColon.has(columnType(only).family);
}

const withoutColon: ReadonlySet<string> = new Set(['number', 'uuid', 'boolean']);

function keyText(form: KeyColumns): string {
  return form.size === 0 ? 'no primary key' : `${plural(form.size, 'key column')} (${[...form.keys()].join(', ')})`;
}
