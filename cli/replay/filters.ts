import type { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { findTable, tablesInLog } from '../../pipeline/log/log-tables.ts';
import { createFilter, type Filter } from '../../pipeline/replay/filter.ts';
import type { Range } from '../../pipeline/replay/range.ts';
import { rowCondition, type RowCondition } from '../../pipeline/replay/row-condition.ts';
import { usage } from '../../pipeline/runtime/errors.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { tableToken, type TableName } from '../../schemas/subjects.ts';
import { requireFittingKeys } from './keys.ts';
import type { ReplayOptions } from './request.ts';

/**
 * The filter that the options ask for.
 * @param say told what a person should know
 * @throws HeadwaterError `unknown_table`, `bad_subjects`, `bad_key`, `bad_where` (usage)
 */
export async function filterOf(
  { subjects, tables: names, ops, key, where: condition, ticks }: ReplayOptions,
  eventLog: JetStreamLog,
  subject: string,
  range: Range,
  say: (line: string) => void,
): Promise<Filter> {
  const tables = names && (await tablesOf(names, eventLog, subject));
  if (subjects) requireOfLog(subjects, subject);
  if (key && tables) await requireFittingKeys(key, tables, { eventLog, subject, range });
  const where = new Map<string, RowCondition>();
  for (const table of condition === undefined ? [] : (tables ?? [])) {
    const made = await rowCondition(eventLog, subject, table, condition!, range.last);
    if (!made.typed) say(`the log no longer tells the columns of ${nameOf(table)}: values compare as their JSON forms suggest`);
    where.set(tableToken(table.schema, table.table), made);
  }
  return createFilter({
    subject,
    ...(subjects ? { subjects } : {}),
    ...(tables ? { tables } : {}),
    ...(ops ? { ops } : {}),
    ...(key ? { keys: key } : {}),
    ...(where.size > 0 ? { where } : {}),
    withoutTicks: !ticks,
  });
}

/** A name with a typing error in it would find nothing, and say so with success. */
async function tablesOf(names: readonly string[], eventLog: JetStreamLog, subject: string): Promise<readonly TableName[]> {
  const found = await Promise.all([...new Set(names)].map((name) => findTable(eventLog, subject, name)));
  const missing = found.filter(({ held }) => !held);
  if (missing.length === 0) return found.flatMap(({ tables }) => tables);
  const known = await tablesInLog(eventLog, subject);
  throw usage(
    'unknown_table',
    missing.map(({ name }) => `the log has no table ${name}${suggestion(name, known)}`).join('\n'),
    known.length === 0 ? 'has capture run?' : `it has ${known.slice(0, 20).join(', ')}${known.length > 20 ? ' and others' : ''}`,
  );
}

function requireOfLog(subjects: readonly string[], subject: string): void {
  const faults = subjects.filter((one) => !new RegExp(`^${subject}(?:\\.(?:[^\\s.*>]+|\\*))*\\.(?:[^\\s.*>]+|\\*|>)$`).test(one));
  if (faults.length > 0)
    throw usage(
      'bad_subjects',
      faults.map((one) => `--subjects: '${one}' is no subject of the log`).join('\n'),
      `like ${subject}.public.*.insert, or ${subject}.>`,
    );
}

function nameOf({ schema, table }: TableName): string {
  return `${schema}.${table}`;
}
