import { suggestion } from '../../schemas/nearest.ts';
import { decodeToken, tableToken, tablesNamed, type TableName } from '../../schemas/subjects.ts';
import type { EventLog } from './event-log.ts';

type Log = Pick<EventLog, 'last' | 'lastPerSubject'>;

/** What somebody who names a table means in the log. */
export interface NamedTable {
  /** `<schema>.<table>`, as it is told. */
  readonly name: string;
  /** Those of that name that the log holds something of; when it holds nothing of any, all that the name can mean. Empty when it is no table's name. */
  readonly tables: readonly TableName[];
  /** Does the log hold something of it? */
  readonly held: boolean;
}

/**
 * Finds a table in the log by its name, in which a dot may be part of the schema's name, or of the table's.
 * @param subject first token of the log's subjects
 * @param text `<schema>.<table>`, or a name in `public`
 */
export async function findTable(log: Log, subject: string, text: string): Promise<NamedTable> {
  const tables = tablesNamed(text);
  const held: TableName[] = [];
  for (const table of tables) {
    const token = tableToken(table.schema, table.table);
    if ((await log.last(`${subject}._schema.${token}`)) ?? (await log.last(`${subject}.${token}.*`))) held.push(table);
  }
  const name = text.includes('.') ? text : `public.${text}`;
  return { name, tables: held.length > 0 ? held : tables, held: held.length > 0 };
}

/** `<schema>.<table>` of the tables whose columns the log tells. */
export async function tablesInLog(log: Log, subject: string): Promise<readonly string[]> {
  const events = await log.lastPerSubject(`${subject}._schema.>`);
  return events.map((event) => event.subject.split('.').slice(2).map(decodeToken).join('.'));
}

/** For a person who has named a table that the log holds nothing of, which may be a typing error or a table to come. */
export async function notHeldText(log: Log, subject: string, name: string): Promise<string> {
  return `The log holds no events of ${name} yet${suggestion(name, await tablesInLog(log, subject)) || '.'}`;
}
