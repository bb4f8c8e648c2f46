import { DatabaseError, type PgPool, type PgPoolClient } from '../../../pipeline/clients/postgres.ts';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import type { Logger } from '../../../pipeline/runtime/logging.ts';
import { badRequest, unavailable, type RequestFault } from '../../../pipeline/runtime/request-fault.ts';

/** Runs statements as the role `headwater_api`, on one owner's rows. */
export interface Statements {
  query<Row extends object>(sql: string, values?: readonly unknown[]): Promise<readonly Row[]>;
}

/** How long one statement of a request may take, and wait for a lock (ms). */
const statementMs = 5_000;
const insufficientPrivilege = '42501';
/** SET ROLE to a role that is not there. */
const noSuchRole = '22023';
/** Schema, table, column or function is not there. */
const notMigrated = /^(?:3F000|42P01|42703|42883)$/;
/** Server away or going away, out of resources, cancelled, or at odds with another transaction: later it may work. */
const passing = /^(?:08|53|57|58|25|40|55P03)/;

/**
 * Access to the rows of one owner, and to no others: each transaction takes the role `headwater_api` and names the owner, and the
 * policies of the tables do the rest.
 */
export class OwnedRows {
  readonly #pool: PgPool;
  readonly #log: Logger;

  constructor(pool: PgPool, log: Logger) {
    this.#pool = pool;
    this.#log = log;
  }

  /**
   * Does the work in a transaction as the owner. What it throws rolls back.
   * @throws RequestFault `unavailable` when the database is away, or not set up
   */
  async as<T>(owner: string, work: (statements: Statements) => Promise<T>): Promise<T> {
    try {
      return await this.#transaction(owner, work);
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      if (error.code !== insufficientPrivilege && error.code !== noSuchRole) throw this.#faultOf(error);
    }
    // The role or its privileges are missing, say since the database comes from a dump: they can often be mended here.
    const missing = await this.#mend();
    if (missing !== undefined) throw this.#notSetUp(missing);
    try {
      return await this.#transaction(owner, work);
    } catch (error) {
      throw error instanceof DatabaseError ? this.#faultOf(error) : error;
    }
  }

  /** Statements without an owner: for the catalogues of PostgreSQL. */
  async catalogue<T>(work: (statements: Statements) => Promise<T>): Promise<T> {
    try {
      return await this.#connected((client) => work(statementsOf(client)));
    } catch (error) {
      throw error instanceof DatabaseError ? this.#faultOf(error) : error;
    }
  }

  async #transaction<T>(owner: string, work: (statements: Statements) => Promise<T>): Promise<T> {
    return this.#connected(async (client) => {
      const statements = statementsOf(client);
      await statements.query(`BEGIN; SET LOCAL ROLE headwater_api; SET LOCAL statement_timeout = ${statementMs}`);
      await statements.query(`SELECT set_config('headwater.user_id', $1, true)`, [owner]);
      const result = await work(statements);
      await statements.query('COMMIT');
      return result;
    });
  }

  async #connected<T>(work: (client: PgPoolClient) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect().catch((error: unknown) => {
      throw error instanceof DatabaseError ? error : away(error);
    });
    let broken: Error | undefined;
    try {
      return await work(client);
    } catch (error) {
      await client.query('ROLLBACK').catch((failure: unknown) => (broken = failure as Error));
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async #mend(): Promise<string | undefined> {
    const [row] = await this.catalogue((statements) =>
      statements.query<{ missing: string | null }>('SELECT headwater.ensure_api_role() AS missing'),
    );
    return row?.missing ?? undefined;
  }

  #notSetUp(missing: string): RequestFault {
    this.#log.error({ missing }, `alerts over HTTP are off until a superuser of the database has run: ${missing}`);
    return unavailable('the database is not set up for this: ask whoever runs it to run `headwater migrate`, which says what is missing');
  }

  #faultOf(error: Error & { readonly code?: string | undefined }): unknown {
    const code = error.code ?? '';
    if (passing.test(code)) return away(error);
    if (notMigrated.test(code)) return unavailable('the database has not been migrated to this version: run `headwater migrate`');
    // Class 22: a value that a column cannot hold. What can be said better is said before.
    if (code.startsWith('22')) return badRequest(`a value cannot be stored: ${messageOf(error)}`);
    return error;
  }
}

function statementsOf(client: PgPoolClient): Statements {
  return {
    async query<Row extends object>(sql: string, values: readonly unknown[] = []) {
      try {
        // Without values it may be several statements, whose results come as a list.
        return (await (values.length === 0 ? client.query<Row>(sql) : client.query<Row>(sql, [...values]))).rows;
      } catch (error) {
        throw error instanceof DatabaseError ? error : away(error);
      }
    },
  };
}

function away(error: unknown): RequestFault {
  return Object.assign(unavailable('the database cannot be asked now, try again'), { cause: error });
}
