import { escapeIdentifier, quoteTable, type PgClient } from '../clients/postgres.ts';
import { refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import type { CapturedTable } from './tables.ts';

interface Publication {
  readonly name: string;
  readonly publish: string;
  readonly appendOnly: boolean;
}

/** The two publications: all changes, and the inserts and truncates of tables without identity. */
function publicationsOf(base: string): readonly [Publication, Publication] {
  return [
    { name: base, publish: 'insert, update, delete, truncate', appendOnly: false },
    { name: `${base}_append`, publish: 'insert, truncate', appendOnly: true },
  ];
}

/** Their names. */
export function publicationList(base: string): readonly string[] {
  return publicationsOf(base).map(({ name }) => name);
}

/**
 * Which tables are not published yet as they should be: changes made to them so far are in no log.
 * @throws HeadwaterError `publication_missing` (refused): decoding looks publications up as they were when the WAL was written,
 * so one that was dropped cannot be put back for a slot that goes on
 */
export async function findJoining(client: PgClient, base: string, tables: readonly CapturedTable[]): Promise<readonly CapturedTable[]> {
  const joining: CapturedTable[] = [];
  for (const { name, appendOnly } of publicationsOf(base)) {
    if (!(await exists(client, name)))
      throw refused(
        'publication_missing',
        `the publication ${name} has been dropped, so PostgreSQL cannot decode what was written since for this slot`,
        'take a new snapshot: headwater resnapshot',
      );
    const published = new Set((await publishedTables(client, name)).map((row) => row.oid));
    joining.push(...tables.filter((table) => table.appendOnly === appendOnly && !published.has(table.oid)));
  }
  return joining;
}

/**
 * Makes the publications, or brings those that are there in line: tables by name, each in exactly one, in one step. They must
 * exist before the slot.
 */
export async function ensurePublications(client: PgClient, base: string, tables: readonly CapturedTable[], log: Logger): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(`SET LOCAL lock_timeout = '30s'`);
    const wanted = publicationsOf(base);
    for (const publication of wanted) {
      if (await exists(client, publication.name)) continue;
      await client.query(
        `CREATE PUBLICATION ${escapeIdentifier(publication.name)} WITH (publish = '${publication.publish}', publish_via_partition_root = true)`,
      );
    }
    for (const { name, appendOnly } of wanted) {
      const members = tables.filter((table) => table.appendOnly === appendOnly);
      await bringInLine(client, name, members, log);
    }
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

async function bringInLine(client: PgClient, name: string, tables: readonly CapturedTable[], log: Logger): Promise<void> {
  const id = escapeIdentifier(name);
  const rows = await publishedTables(client, name);
  const published = new Set(rows.map((row) => row.oid));
  const wanted = new Set(tables.map((table) => table.oid));
  const added = tables.filter((table) => !published.has(table.oid));
  const dropped = rows.filter((row) => !wanted.has(row.oid));
  const list = (members: readonly { schema: string; table: string }[]): string =>
    members.map((member) => `ONLY ${quoteTable(member.schema, member.table)}`).join(', ');
  if (dropped.length > 0) await client.query(`ALTER PUBLICATION ${id} DROP TABLE ${list(dropped)}`);
  if (added.length > 0) await client.query(`ALTER PUBLICATION ${id} ADD TABLE ${list(added)}`);
  if (added.length + dropped.length === 0) return;
  const names = (members: readonly { schema: string; table: string }[]): string[] =>
    members.map((member) => `${member.schema}.${member.table}`);
  log.info({ publication: name, added: names(added), removed: names(dropped) }, 'publication brought in line');
}

async function exists(client: PgClient, name: string): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM pg_catalog.pg_publication WHERE pubname = $1', [name]);
  return rowCount === 1;
}

async function publishedTables(client: PgClient, name: string): Promise<readonly { oid: number; schema: string; table: string }[]> {
  const { rows } = await client.query<{ oid: number; schema: string; table: string }>(
    `SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS table
       FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
       JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1`,
    [name],
  );
  return rows;
}
