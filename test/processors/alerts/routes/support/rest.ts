import { expect } from 'chai';
import { migrate } from '../../../../../deploy/migrate.ts';
import { connectNats } from '../../../../../pipeline/clients/nats.ts';
import { createPool, type PgPool } from '../../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../../pipeline/runtime/logging.ts';
import { alertRoutes } from '../../../../../processors/alerts/routes/routes.ts';
import { defiCatalog } from '../../../../../schemas/catalog-file.ts';
import { unnamedEntry, type Catalog } from '../../../../../schemas/catalog.ts';
import { createValidators } from '../../../../../schemas/validate.ts';
import { startHarness, TestKeys } from '../../../../gateway/support/harness.ts';
import { freshLog, type FreshLog } from '../../../../pipeline/log/support/fresh-log.ts';
import { freshDatabase, testServers } from '../../../../support/servers.ts';

const { errorBody } = createValidators();

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // What an answer holds is what the tests are about.
  readonly body: Record<string, unknown> & { readonly id: string; readonly items: Record<string, unknown>[]; readonly next: string | null };
  /** The error of an answer that is one; the test fails when it is none. */
  readonly error: { readonly code: string; readonly message: string; readonly field?: string; readonly faults?: readonly object[] };
}

export interface CallOptions {
  /** ann (default) and bob have the scope `alerts`, root has `admin`, guest has `read`. */
  readonly as?: 'ann' | 'bob' | 'root' | 'guest';
  readonly headers?: Readonly<Record<string, string>>;
  /** The body as it is, instead of JSON. */
  readonly raw?: string | Buffer;
}

/** The routes behind a real gateway, on a database with the demo market's tables and a log of their own. */
export interface Rest {
  readonly url: string;
  readonly databaseUrl: string;
  readonly log: FreshLog;
  call(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Answer>;
  /** Runs SQL as the owner of the tables. */
  sql(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  close(): Promise<void>;
}

export const vapidKey = 'BFkNFzIBKQ6dDZE5XoMYVvTyJrvZzYkRyCFZ2C9zS0bV1XwEHvX4YDJQGlVb3J9zT0m1lB7S0Y7Yk2Qd6hYp2yM';

const catalog: Catalog = {
  ...defiCatalog(),
  tables: new Map([...defiCatalog().tables, ['public.hidden', { ...unnamedEntry, channel: 'hidden', exclude: ['secret'] }]]),
  exclude: ['audit.*'],
};

export async function startRest({ url }: { url?: string } = {}): Promise<Rest> {
  const database = await freshDatabase();
  await migrate(database.url, { demo: true, log: silentLogger() });
  const connection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
  const log = await freshLog(connection);
  const owner = createPool(database.url, 'test', silentLogger(), 2);
  const pool = createPool(url ?? database.url, 'test routes', silentLogger(), 5);
  const config = { subject: log.subject, publication: 'headwater', allowPrivateWebhooks: false, vapidPublicKey: vapidKey };
  const routes = [alertRoutes({ pool, eventLog: log.log, catalog, config, log: silentLogger() })];
  const keys = new TestKeys();
  for (const name of ['ann', 'bob']) keys.add(name, { owner: name, scopes: ['alerts'] });
  keys.add('root', { owner: 'root', scopes: ['admin'] });
  keys.add('guest', { owner: 'guest', scopes: ['read'] });
  const env = { HEADWATER_STREAM: log.subject, HEADWATER_SUBJECT: log.subject };
  const harness = await startHarness(log.log, { env, parts: { routes, keys } });
  return {
    url: harness.gateway.url,
    databaseUrl: database.url,
    log,
    call: (method, path, body, options) => call(harness.gateway.url, method, path, body, options),
    sql: (text, values = []) => sql(owner, text, values),
    async close() {
      await harness.stop();
      await Promise.all([pool.end(), owner.end()]);
      log.log.close();
      await log.remove();
      await connection.close();
      await database.drop();
    },
  };
}

async function sql(pool: PgPool, text: string, values: readonly unknown[]): Promise<Record<string, unknown>[]> {
  return (await pool.query<Record<string, unknown>>(text, [...values])).rows;
}

async function call(url: string, method: string, path: string, body: unknown, options: CallOptions = {}): Promise<Answer> {
  const sent = options.raw ?? (body === undefined ? undefined : JSON.stringify(body));
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${options.as ?? 'ann'}`,
      ...(sent !== undefined && { 'content-type': 'application/json' }),
      ...options.headers,
    },
    ...(sent !== undefined && { body: sent }),
  });
  const text = await response.text();
  const parsed = (text === '' ? undefined : JSON.parse(text)) as Answer['body'];
  return {
    status: response.status,
    headers: response.headers,
    text,
    body: parsed,
    get error() {
      expect(errorBody(parsed), text).to.equal(undefined);
      return parsed['error'] as Answer['error'];
    },
  };
}

/** A rule that is good; what is given replaces its members, undefined takes them away. */
export function rule(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return { name: 'ETH above 3000', table: 'public.prices', when: { field: 'price', op: 'gt', value: '3000' }, ...changes };
}
