import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KeyStore } from '../pipeline/keys/key-store.ts';
import type { EventLog, LogEvent } from '../pipeline/log/event-log.ts';
import type { RowSource } from '../pipeline/runner/row-source.ts';
import type { Feed } from '../pipeline/runtime/feed.ts';
import type { Routes } from '../pipeline/runtime/http.ts';
import type { Role, RoleContext } from '../pipeline/runtime/lifecycle.ts';
import type { Catalog } from '../schemas/catalog.ts';
import { credentialOf, ignoreUpgrade, offersOther, refusalOf, refuseUpgrade, type AdmissionServices } from './admission.ts';
import { Authenticator } from './authenticator.ts';
import { Channels, type ChannelEvent } from './channels.ts';
import { clientAddress } from './client-address.ts';
import { Feeds } from './connection-feeds.ts';
import { Connection, type ConnectionServices } from './connection.ts';
import { FanOut } from './fan-out.ts';
import { Flusher } from './flusher.ts';
import { createHttpServer, listen } from './http-server.ts';
import { KeyConnections } from './limits.ts';
import { gatewayMetrics, type GatewayMetrics } from './metrics.ts';
import type { Presence } from './presence.ts';
import { createQueryApi, type QueryApi, type QueryParts } from './query/query-api.ts';
import { ReaderPool } from './reader-pool.ts';
import { Tail } from './tail.ts';
import { TokenBuckets } from './token-bucket.ts';
import { createAcceptor } from './websocket.ts';
import { Wheel } from './wheel.ts';

/** What the gateway stands on. */
export interface GatewayParts {
  readonly eventLog: EventLog;
  readonly catalog: Catalog;
  readonly keys: KeyStore;
  /** Current rows for snapshots; without it `snapshot: true` is answered `snapshot_unavailable`. */
  readonly rows?: RowSource;
  readonly presence?: Presence;
  /** With it, tables can be queried. */
  readonly query?: QueryParts;
  /** Routes of processors, mounted behind the authentication. */
  readonly routes?: readonly Routes[];
  /** Channels of processors: those whose names begin with a feed's prefix. */
  readonly feeds?: readonly Feed[];
}

/** A running gateway. */
export interface Gateway extends Role {
  /** Where it listens, `http://host:port`. */
  readonly url: string;
  /** Resolves when the end of the log has been reached for the first time; until then upgrades are answered 503. */
  readonly ready: Promise<void>;
}

const stopWithinMs = 3_000;

/** Starts the gateway; resolves when it listens, whether or not the log can be reached yet. */
export async function startGateway(context: RoleContext, parts: GatewayParts): Promise<Gateway> {
  const gateway = new RunningGateway(context, parts);
  await gateway.start();
  return gateway;
}

class RunningGateway implements Gateway {
  readonly name = 'gateway';
  readonly done: Promise<void>;
  readonly ready: Promise<void>;
  url = '';
  readonly #context: RoleContext;
  readonly #parts: GatewayParts;
  readonly #metrics: GatewayMetrics;
  readonly #authenticator: Authenticator;
  readonly #tail: Tail;
  readonly #query: QueryApi | undefined;
  readonly #fanOut = new FanOut();
  readonly #feeds: Feeds;
  readonly #flusher = new Flusher();
  readonly #wheel = new Wheel();
  readonly #connections = new Set<Connection>();
  readonly #connects = new TokenBuckets();
  readonly #commands = new TokenBuckets();
  readonly #stopping = new AbortController();
  #finish: () => void = () => undefined;
  #becomeReady: () => void = () => undefined;
  readonly #channels: Channels;
  #close: () => Promise<void> = () => Promise.resolve();
  #reading: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;

  constructor(context: RoleContext, parts: GatewayParts) {
    const { config, log, health } = context;
    this.#context = context;
    this.#parts = parts;
    this.#metrics = gatewayMetrics(context.metrics);
    this.#authenticator = new Authenticator(parts.keys, config.subject, log, health);
    this.#channels = new Channels(parts.catalog);
    this.#tail = new Tail({
      eventLog: parts.eventLog,
      channels: this.#channels,
      subject: config.subject,
      windowBytes: config.recentWindow,
      log,
      health,
      onEvents: (events, raw) => this.#onEvents(events, raw),
      onReady: () => this.#becomeReady(),
      onLost: (detail) => {
        this.#query?.lost();
        this.#endAll('position_lost', detail);
      },
    });
    this.#query = parts.query && createQueryApi(context, parts.query, { ...parts, tail: this.#tail });
    const feedContext = { eventLog: parts.eventLog, tail: this.#tail, maxFilterValues: config.limitFilterValues, log };
    this.#feeds = new Feeds(parts.feeds ?? [], feedContext, this.#metrics);
    this.done = new Promise((resolve) => (this.#finish = resolve));
    this.ready = new Promise((resolve) => (this.#becomeReady = resolve));
  }

  async start(): Promise<void> {
    const { config, log, health, signal } = this.#context;
    health.report('nats', false, 'not read yet');
    const address = clientAddress(config.trustedProxies);
    const routes = [...(this.#query ? [this.#query.routes] : []), ...(this.#parts.routes ?? [])];
    const app = await createHttpServer({ config, log, address, authenticator: this.#authenticator, routes });
    this.#close = () => app.close();
    const services = this.#connectionServices();
    const acceptor = createAcceptor((socket, message) => refuseUpgrade(socket, { code: 'bad_request', message }));
    const admission: AdmissionServices = {
      config,
      address,
      connects: this.#connects,
      ready: () => this.#tail.ready && !this.#stopping.signal.aborted,
    };
    app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      socket.on('error', () => socket.destroy());
      if (offersOther(request)) return ignoreUpgrade(app.server, request, socket);
      const refusal = refusalOf(request, admission);
      if (refusal) return refuseUpgrade(socket, refusal);
      acceptor.accept(request, socket, head, (opened) => {
        const connection = new Connection(opened, credentialOf(request), services, (gone) => this.#connections.delete(gone));
        this.#connections.add(connection);
      });
    });
    this.url = await listen(app, config);
    this.#wheel.add({ visit: () => this.#sweep() });
    this.#wheel.start();
    this.#reading = this.#tail.run(this.#stopping.signal);
    signal.addEventListener('abort', () => void this.stop(), { once: true });
    log.info(`gateway listens on ${this.url}`);
  }

  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    this.#endAll('restart', 'the gateway is restarting; resume at once');
    const closed = this.#close();
    const until = performance.now() + stopWithinMs;
    while (this.#connections.size > 0 && performance.now() < until) await sleep(20);
    for (const connection of this.#connections) connection.terminate();
    await Promise.all([closed, this.#reading]);
    this.#query?.close();
    this.#wheel.stop();
    this.#finish();
  }

  #connectionServices(): ConnectionServices {
    const { config, log } = this.#context;
    const { eventLog, rows, presence } = this.#parts;
    const shared = { tail: this.#tail, metrics: this.#metrics };
    const replay = {
      ...shared,
      eventLog,
      rows,
      log,
      channels: this.#channels,
      readers: new ReaderPool(config.replayReaders),
      maxFilterValues: config.limitFilterValues,
    };
    return {
      ...shared,
      config,
      replay,
      presence,
      fanOut: this.#fanOut,
      feeds: this.#feeds,
      flusher: this.#flusher,
      wheel: this.#wheel,
      authenticator: this.#authenticator,
      keyConnections: new KeyConnections(),
      commands: this.#commands,
    };
  }

  /** A slice of the log's newest events: to the subscribers, and to the sockets at once. */
  #onEvents(events: readonly ChannelEvent[], raw: readonly LogEvent[]): void {
    for (const event of raw) this.#authenticator.observe(event);
    this.#query?.observe(raw);
    const times: string[] = [];
    let deliveries = 0;
    for (const event of events) {
      const receivers = this.#fanOut.deliver(event);
      deliveries += receivers;
      if (receivers > 0 && event.at !== undefined) times.push(event.at);
    }
    if (deliveries === 0) return;
    this.#flusher.flush();
    this.#metrics.deliveries.inc(deliveries);
    const now = Date.now();
    for (const at of times) this.#metrics.latency.observe(Math.max(0, now - Date.parse(at)) / 1_000);
  }

  #endAll(reason: 'position_lost' | 'restart', message: string): void {
    for (const connection of this.#connections) connection.end(reason, message);
  }

  /** Once a second. */
  #sweep(): void {
    const now = performance.now();
    this.#connects.sweep(now);
    this.#commands.sweep(now);
    this.#metrics.connections.set(this.#connections.size);
    this.#metrics.subscriptions.set(this.#fanOut.size + this.#feeds.live);
    this.#metrics.windowBytes.set(this.#tail.window.bytes);
  }
}
