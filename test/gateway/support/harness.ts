import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { WebSocket, type ClientOptions } from 'ws';
import { startGateway, type Gateway, type GatewayParts } from '../../../gateway/gateway.ts';
import type { ApiKey, KeyStore } from '../../../pipeline/keys/key-store.ts';
import type { EventLog, NewEvent } from '../../../pipeline/log/event-log.ts';
import { readConfig } from '../../../pipeline/runtime/config.ts';
import { Health } from '../../../pipeline/runtime/health.ts';
import { silentLogger, type Logger } from '../../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../../pipeline/runtime/metrics.ts';
import { defiCatalog } from '../../../schemas/catalog-file.ts';
import { eventSchema } from '../../../schemas/generated/event.ts';
import { framesSchema } from '../../../schemas/generated/frames.ts';
import { MemoryLog } from '../../support/memory-log.ts';

export interface Frame {
  readonly type: string;
  readonly [field: string]: unknown;
}

const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);
ajv.addSchema(eventSchema);
const validServerFrame = ajv.addSchema(framesSchema, 'frames').compile({ $ref: 'frames#/$defs/serverFrame' });

export class TestKeys implements KeyStore {
  readonly #keys = new Map<string, ApiKey>();
  down = false;
  lookups = 0;

  add(text: string, key: Partial<ApiKey> = {}): void {
    this.#keys.set(createHash('sha256').update(text).digest('hex'), {
      keyId: `id-of-${text}`,
      owner: 'ann',
      scopes: ['read', 'alerts', 'admin'],
      expiresAt: undefined,
      ...key,
    });
  }

  find(sha256Hex: string): Promise<ApiKey | undefined> {
    this.lookups++;
    return this.down ? Promise.reject(new Error('the store is down')) : Promise.resolve(this.#keys.get(sha256Hex));
  }
}

/** A client that records what it gets. */
export class TestClient {
  readonly ws: WebSocket;
  readonly frames: Frame[] = [];
  /** Frames that the schema does not allow. */
  readonly invalid: Frame[] = [];
  readonly closed: Promise<number>;
  #waiters: { readonly test: (frame: Frame) => boolean; readonly resolve: (frame: Frame) => void }[] = [];
  readonly #taken = new Set<Frame>();

  constructor(url: string, options: ClientOptions = {}) {
    this.ws = new WebSocket(url, options);
    this.ws.on('error', () => undefined);
    this.ws.on('message', (data: Buffer) => this.#take(JSON.parse(data.toString('utf8')) as Frame));
    this.closed = new Promise((resolve) => this.ws.on('close', resolve));
  }

  static readonly all = new Set<TestClient>();

  static async open(gateway: Gateway, key: string | null = 'secret', options: ClientOptions = {}): Promise<TestClient> {
    const client = new TestClient(`${gateway.url.replace('http', 'ws')}/v2/realtime`, options);
    TestClient.all.add(client);
    await once(client.ws, 'open');
    if (key !== null) {
      client.send({ type: 'connect', auth: { apiKey: key } });
      await client.next('connected');
    }
    return client;
  }

  send(frame: object | string): void {
    this.ws.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** The next frame of this type, or for which the test holds, that was not taken yet. */
  next(wanted: string | ((frame: Frame) => boolean), timeoutMs = 5_000): Promise<Frame> {
    const test = typeof wanted === 'string' ? (frame: Frame) => frame.type === wanted : wanted;
    const had = this.frames.find((frame) => !this.#taken.has(frame) && test(frame));
    if (had) {
      this.#taken.add(had);
      return Promise.resolve(had);
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`no ${String(wanted)}; last: ${JSON.stringify(this.frames.slice(-3)).slice(0, 500)}`)),
        timeoutMs,
      );
      this.#waiters.push({ test, resolve: (frame) => (clearTimeout(timer), resolve(frame)) });
    });
  }

  async subscribe(frame: object): Promise<Frame> {
    this.send({ type: 'subscribe', id: 1, ...frame });
    return this.next((answer) => answer.type === 'subscribed' || answer.type === 'error');
  }

  events(): { seq: number; sub: unknown }[] {
    return this.frames.filter(({ type }) => type === 'event').map(({ seq, sub }) => ({ seq: seq as number, sub }));
  }

  seqs(): number[] {
    return this.events().map(({ seq }) => seq);
  }

  #take(frame: Frame): void {
    this.frames.push(frame);
    // The tests' events are simpler than real ones; all else has to be as the schema says.
    if (frame.type !== 'event' && frame.type !== 'snapshot' && !validServerFrame(frame)) this.invalid.push(frame);
    const waiter = this.#waiters.find(({ test }) => test(frame));
    if (!waiter) return;
    this.#taken.add(frame);
    this.#waiters = this.#waiters.filter((other) => other !== waiter);
    waiter.resolve(frame);
  }
}

export interface Harness {
  readonly gateway: Gateway;
  readonly keys: TestKeys;
  readonly health: Health;
  stop(): Promise<void>;
}

/** A gateway on a free port, on any log, with the DeFi catalogue and the key `secret`. */
export async function startHarness<Log extends EventLog>(
  eventLog: Log,
  { env = {}, parts = {}, logger = silentLogger() }: { env?: Record<string, string>; parts?: Partial<GatewayParts>; logger?: Logger } = {},
): Promise<Harness & { log: Log }> {
  const config = readConfig({ HEADWATER_PORT: '0', HEADWATER_LIMIT_CONNECTS: '100000', HEADWATER_LIMIT_COMMANDS: '100000', ...env });
  const health = new Health();
  const keys = new TestKeys();
  keys.add('secret');
  const stopping = new AbortController();
  const context = { config, log: logger, metrics: createRegistry(), health, signal: stopping.signal };
  const gateway = await startGateway(context, { eventLog, catalog: defiCatalog(), keys, ...parts });
  await gateway.ready;
  const stop = async (): Promise<void> => {
    await gateway.stop();
    const invalid = [...TestClient.all].flatMap((client) => client.invalid);
    TestClient.all.clear();
    if (invalid.length > 0) throw new Error(`frames that the schema does not allow: ${JSON.stringify(invalid.slice(0, 3))}`);
  };
  return { gateway, keys, health, log: eventLog, stop };
}

export function memoryHarness(
  options: { env?: Record<string, string>; parts?: Partial<GatewayParts>; events?: readonly NewEvent[] } = {},
): Promise<Harness & { log: MemoryLog }> {
  const log = new MemoryLog();
  if (options.events) void log.append(options.events, 0);
  return startHarness(log, options);
}

let lsn = 0;

/** A price as capture would write it. */
export function price(token: string, value: string | number, extra: object = {}): NewEvent {
  const row = { token_id: token, chain: token.split(':')[0], price: String(value) };
  return event('public.prices', 'update', { type: 'price_update', key: { token_id: token }, after: row, ...extra });
}

export function event(table: string, op: string, body: object): NewEvent {
  lsn++;
  const id = `${lsn.toString(16).toUpperCase().padStart(16, '0')}.00000001`;
  const data = Buffer.from(JSON.stringify({ v: 1, id, op, table, at: new Date().toISOString(), ...body }));
  return { subject: `ev.${table}.${op}`, data };
}

/** Until it holds, or the time is over. */
export async function until(holds: () => boolean, timeoutMs = 5_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`it never held: ${holds.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
