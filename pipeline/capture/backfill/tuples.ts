import type { PgClient } from '../../clients/postgres.ts';
import { columnKind, Tuple } from '../../source/pgoutput.ts';
import { readRows } from '../../source/table-reader.ts';

/** The one row of key columns that a query gives, as texts. */
export async function keyAt(client: PgClient, query: string): Promise<readonly string[] | undefined> {
  let found: readonly string[] | undefined;
  await readRows(client, query, ({ source, starts, ends, count }) => {
    found = Array.from({ length: count }, (_, i) => source.toString('utf8', starts[i], ends[i]));
  });
  return found;
}

/** A tuple of its own, since the reader's is overwritten by the next row. */
export function copyOf(row: Tuple): Tuple {
  const copy = new Tuple();
  const base = row.starts[0] ?? 0;
  copy.source = Buffer.from(row.source.subarray(base, row.ends[row.count - 1]));
  copy.count = row.count;
  for (let i = 0; i < row.count; i++) {
    copy.kinds[i] = row.kinds[i] ?? columnKind.null;
    copy.starts[i] = row.starts[i]! - base;
    copy.ends[i] = row.ends[i]! - base;
  }
  return copy;
}
