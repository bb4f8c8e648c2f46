import type { PgPool } from '../../pipeline/clients/postgres.ts';
import type { QueryTable } from './model.ts';
import { SharedQuestion } from './shared-question.ts';
import { queryVersions } from './table-rows.ts';

type Named = Pick<QueryTable, 'schema' | 'table'>;

/** A question is some work for the database (a tenth of a millisecond): all who ask within so many milliseconds share one. */
const spacingMs = 2;

/**
 * Whether tables are as they were described. No event tells of most changes of a definition, and none in time: so PostgreSQL is asked,
 * after each request has come, by one question for all.
 */
export class TableVersions {
  readonly #pool: PgPool;
  readonly #question = new SharedQuestion(() => this.#ask(), { spacingMs });
  /** What the next question is about. */
  #wanted = new Map<string, Named>();

  constructor(pool: PgPool) {
    this.#pool = pool;
  }

  /** Is the table, at some moment after the call, as it is described? Undefined when PostgreSQL does not say. */
  async isCurrent(table: QueryTable): Promise<boolean | undefined> {
    const name = nameOf(table);
    this.#wanted.set(name, table);
    const versions = await this.#question.ask();
    return versions && versions.get(name) === table.version;
  }

  async #ask(): Promise<ReadonlyMap<string, string>> {
    const wanted = [...this.#wanted.values()];
    this.#wanted = new Map();
    const { rows } = await this.#pool.query<Named & { version: string }>({
      // Planning takes far longer than running.
      name: 'headwater_table_versions',
      text: queryVersions,
      values: [wanted.map(({ schema }) => schema), wanted.map(({ table }) => table)],
    });
    return new Map(rows.map((row) => [nameOf(row), row.version]));
  }
}

function nameOf({ schema, table }: Named): string {
  return JSON.stringify([schema, table]);
}
