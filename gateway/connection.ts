import { randomBytes } from 'node:crypto';
import type { ApiKey } from '../pipeline/keys/key-store.ts';
import type { Config } from '../pipeline/runtime/config.ts';
import type { Seq } from '../pipeline/log/event-log.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import { errorCodes, type CloseReason } from '../schemas/error-codes.ts';
import type { Authenticator } from './authenticator.ts';
import { parseClientFrame, type Credential } from './client-frames.ts';
import { ConnectionFeeds, type Feeds } from './connection-feeds.ts';
import type { FanOut, LiveSubscription, Receiver } from './fan-out.ts';
import type { Flushed, Flusher } from './flusher.ts';
import { Heartbeat } from './heartbeat.ts';
import { limitsOf, type KeyConnections } from './limits.ts';
import type { GatewayMetrics } from './metrics.ts';
import { liveHighWater, Outbox } from './outbox.ts';
import type { Presence } from './presence.ts';
import { ReplayTurns } from './replay-turns.ts';
import { runReplay, type ReplayContext, type ReplayTarget } from './replay.ts';
import { openSession, phaseOf, step } from './session.ts';
import type { Input, Output, Refusal, SessionState, SubscriptionRequest } from './session-state.ts';
import type { Selection } from './start-position.ts';
import type { Tail } from './tail.ts';
import type { TokenBuckets } from './token-bucket.ts';
import type { GatewaySocket } from './websocket.ts';
import type { Visited, Wheel } from './wheel.ts';
import { eventFrame, jsonFrame, pingFrame, snapshotFrame } from './wire.ts';

/** What all connections share. */
export interface ConnectionServices {
  readonly config: Config;
  readonly tail: Tail;
  readonly fanOut: FanOut;
  readonly flusher: Flusher;
  readonly wheel: Wheel;
  readonly authenticator: Authenticator;
  readonly keyConnections: KeyConnections;
  readonly commands: TokenBuckets;
  readonly replay: ReplayContext;
  readonly metrics: GatewayMetrics;
  readonly presence: Presence | undefined;
  readonly feeds: Feeds;
}

/** Unsent bytes above which a replay waits. */
const replayHighWater = 256 * 1024;
const cursorEveryMs = 14_000;
/** When a key has too many connections on other nodes it is asked to come back after this: by then it is known which are left. */
const elsewhereRetryMs = 5_000;
/** A client that was told this often to slow down, and did not, is closed. */
const maxRefusals = 500;

interface Running {
  readonly abort: AbortController;
  selection: Selection | undefined;
}

/** One WebSocket connection: carries out what its session decides, and tells the session what happened. */
export class Connection implements Receiver, Flushed, Visited {
  lastLive: Seq = 0;
  readonly id = randomBytes(9).toString('base64url');
  readonly #socket: GatewaySocket;
  readonly #services: ConnectionServices;
  readonly #onGone: (connection: Connection) => void;
  readonly #leaveWheel: () => void;
  readonly #heartbeat: Heartbeat;
  readonly #since = Date.now();
  readonly #running = new Map<number, Running>();
  readonly #live = new Map<number, LiveSubscription>();
  readonly #feeds: ConnectionFeeds;
  readonly #outbox: Outbox;
  readonly #turns = new ReplayTurns(() => this.#takesMore());
  #state: SessionState;
  #inputs: Input[] = [];
  #stepping = false;
  #key: ApiKey | undefined;
  /** Live frames have come since the last visit. */
  #pushed = false;
  #cursorDue = false;
  #cursorAt = Date.now();
  /** Subscriptions that presence was told of; -1 when it has to be told anew. */
  #toldSubscriptions = -1;
  #refusals = 0;

  /** @param credential what came with the upgrade; without it the first frame has to be `connect` */
  constructor(
    socket: GatewaySocket,
    credential: Credential | undefined,
    services: ConnectionServices,
    onGone: (connection: Connection) => void,
  ) {
    this.#socket = socket;
    this.#services = services;
    this.#onGone = onGone;
    this.#outbox = new Outbox({
      socket,
      onFirst: () => services.flusher.add(this),
      onWritten: (bytes) => services.metrics.sentBytes.inc(bytes),
    });
    this.#feeds = new ConnectionFeeds(services.feeds, {
      dispatch: (input) => this.#dispatch(input),
      turn: (who, signal) => this.#turns.take(who, signal),
      pushLive: (frame) => this.pushLive(frame),
    });
    this.#state = openSession(this.id, this.#since);
    this.#heartbeat = new Heartbeat(this.#since);
    socket.listen({
      text: (text) => this.#onText(text),
      binary: () => this.#onFrameLimited({ type: 'malformed', message: 'frames must be text' }),
      pong: () => this.#heartbeat.heard(),
      drained: () => this.#turns.check(),
      closed: (code) => this.#onClosed(code),
    });
    this.#leaveWheel = services.wheel.add(this);
    if (credential) this.#dispatch({ type: 'frame', frame: { type: 'connect', credential } });
  }

  /** Ends the conversation with an error frame and a close code. */
  end(reason: CloseReason, message: string): void {
    this.#dispatch({ type: 'end', reason, message });
  }

  terminate(): void {
    this.#socket.terminate();
  }

  pushLive(frame: Buffer): void {
    this.#pushed = true;
    this.#outbox.pushLive(frame);
  }

  /** Writes what has been collected. A reader that leaves more than a mebibyte of live events unsent is cut off. */
  flush(): void {
    if (!this.#outbox.flush()) this.end('slow_consumer', `more than ${liveHighWater} bytes are unsent; resume from the last event`);
  }

  /** Once a second. */
  visit(now: number): void {
    const replaying = phaseOf(this.#state) === 'replaying';
    const verdict = this.#heartbeat.check(now, this.#socket, replaying);
    if (verdict === 'ping') this.#outbox.push(pingFrame);
    else if (verdict === 'slow') this.end('slow_consumer', 'the connection has taken nothing for 10 s; resume from the last event');
    else if (verdict === 'dead') this.end('heartbeat', 'no answer to a ping');
    this.#dispatch({ type: 'tick', now });
    this.#visitCursor(now);
    this.#tellPresence();
  }

  #visitCursor(now: number): void {
    this.#cursorDue ||= this.#pushed;
    const quiet = this.#cursorDue && !this.#pushed;
    this.#pushed = false;
    if ((this.#live.size === 0 && !this.#feeds.live) || (!quiet && now - this.#cursorAt < cursorEveryMs)) return;
    this.#cursorDue = false;
    this.#cursorAt = now;
    this.#dispatch({ type: 'liveCursor', seq: this.#feeds.reached(this.#services.tail.position) });
  }

  #tellPresence(): void {
    const { presence } = this.#services;
    const subscriptions = this.#state.subscriptions.size;
    if (!presence || !this.#key || subscriptions === this.#toldSubscriptions) return;
    this.#toldSubscriptions = subscriptions;
    presence.set({ connection: this.id, keyId: this.#key.keyId, since: this.#since, subscriptions });
  }

  #onText(text: string): void {
    this.#heartbeat.heard();
    this.#onFrameLimited(parseClientFrame(text));
  }

  #onFrameLimited(frame: ReturnType<typeof parseClientFrame>): void {
    if (this.#state.phase === 'open' && this.#key) {
      const { commandsPerSecond, commandsBurst } = this.#state.limits!;
      const retryAfterMs = this.#services.commands.take(this.#key.keyId, commandsPerSecond, commandsBurst, performance.now());
      if (retryAfterMs > 0) {
        if (++this.#refusals > maxRefusals) return this.end('rate_limited', 'too many commands, for too long');
        return this.#dispatch({ type: 'limited', id: frame.id, retryAfterMs });
      }
      this.#refusals = 0;
    }
    this.#dispatch({ type: 'frame', frame });
  }

  #onClosed(code: number): void {
    this.#services.metrics.closes.inc({ code: String(code) });
    this.#dispatch({ type: 'gone' });
    this.#leaveWheel();
    this.#outbox.clear();
    if (this.#key) {
      this.#services.keyConnections.leave(this.#key.keyId);
      this.#services.presence?.remove(this.id);
    }
    this.#onGone(this);
  }

  /** One input after the other: what an output brings about at once waits its turn. */
  #dispatch(input: Input): void {
    this.#inputs.push(input);
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      for (let next = this.#inputs.shift(); next; next = this.#inputs.shift()) {
        const { state, out } = step(this.#state, next);
        this.#state = state;
        for (const output of out) this.#perform(output);
      }
    } finally {
      this.#stepping = false;
    }
  }

  #perform(output: Output): void {
    switch (output.type) {
      case 'send':
        return this.#outbox.push(jsonFrame(output.frame));
      case 'sendEvents':
        for (const { seq, bytes } of output.events) this.#outbox.push(eventFrame(seq, output.channel, bytes, output.sub));
        return this.#services.metrics.deliveries.inc(output.events.length);
      case 'sendRows':
        return this.#outbox.push(snapshotFrame(output.sub, output.asOf, output.items, output.more));
      case 'authenticate':
        return void this.#authenticate(output.credential).catch((error: unknown) => {
          this.#services.replay.log.error({ error: messageOf(error) }, 'an authentication failed');
          this.end('internal', 'the key could not be judged; try again');
        });
      case 'begin':
        return this.#begin(output.ref, output.request);
      case 'join':
        return this.#join(output.ref);
      case 'leave':
        return this.#leave(output.ref);
      case 'close':
        return this.#close(output.reason);
    }
  }

  async #authenticate(credential: Credential): Promise<void> {
    const { authenticator, config, tail } = this.#services;
    const outcome =
      credential.kind === 'apiKey'
        ? await authenticator.authenticate(credential.apiKey)
        : ({ ok: false, code: 'unauthorized', message: 'auth must be {"apiKey": "…"}' } as const);
    if (this.#state.phase === 'closed') return;
    if (!outcome.ok) return this.#dispatch({ type: 'refused', code: outcome.code, message: outcome.message });
    const { key } = outcome;
    const limits = limitsOf(config, key.limits);
    if (key.keyId !== this.#key?.keyId) {
      const refusal = this.#enter(key.keyId, limits.connections);
      if (refusal) return this.#dispatch({ type: 'refused', ...refusal });
      if (this.#key) this.#services.keyConnections.leave(this.#key.keyId);
      this.#toldSubscriptions = -1;
    }
    this.#key = key;
    this.#dispatch({ type: 'admitted', principal: key, limits, epoch: tail.epoch, head: tail.position });
  }

  /**
   * Counts this connection for the key. What is known of other nodes is some seconds old: connections of a node that has
   * just gone may be among it, so that a client that comes from there is only asked to come back.
   */
  #enter(keyId: string, most: number): Refusal | undefined {
    const { keyConnections, presence } = this.#services;
    if (keyConnections.enter(keyId, most - (presence?.elsewhere(keyId) ?? 0))) return undefined;
    const message = `the key has ${most} connections already`;
    if (keyConnections.of(keyId) >= most) return { code: 'connection_limit', message };
    return { code: 'rate_limited', message: `${message}, counted on all nodes some seconds ago`, retryAfterMs: elsewhereRetryMs };
  }

  #begin(ref: number, request: SubscriptionRequest): void {
    if (this.#feeds.begin(ref, request)) return;
    const running: Running = { abort: new AbortController(), selection: undefined };
    this.#running.set(ref, running);
    const target: ReplayTarget = {
      positioned: ({ start, oldest, head }, selection, snapshotAsOf) => {
        running.selection = selection;
        this.#dispatch({ type: 'positioned', ref, start, oldest, head, snapshotAsOf });
      },
      page: (items, more) => this.#dispatch({ type: 'page', ref, items, more }),
      replayed: (events, through) => this.#dispatch({ type: 'replayed', ref, events, through }),
      caughtUp: (seq) => this.#dispatch({ type: 'caughtUp', ref, seq }),
      failed: (fault) => this.#dispatch({ type: 'failed', ref, fault }),
      drained: (patienceMs) => this.#turns.take(running, running.abort.signal, patienceMs),
    };
    void runReplay(request, target, this.#services.replay, running.abort.signal);
  }

  #takesMore(): boolean {
    this.flush();
    return !this.#socket.open || this.#socket.unsentBytes <= replayHighWater;
  }

  #join(ref: number): void {
    this.#feeds.join(ref);
    const selection = this.#running.get(ref)?.selection;
    if (!selection) return;
    this.#running.delete(ref);
    const subscription: LiveSubscription = { ...selection, receiver: this };
    this.#live.set(ref, subscription);
    this.#services.fanOut.join(subscription);
  }

  #leave(ref: number): void {
    this.#feeds.leave(ref);
    this.#running.get(ref)?.abort.abort();
    this.#running.delete(ref);
    const subscription = this.#live.get(ref);
    if (subscription) this.#services.fanOut.leave(subscription);
    this.#live.delete(ref);
  }

  #close(reason: CloseReason): void {
    if (this.#socket.open) this.#outbox.write();
    this.#socket.close(errorCodes[reason].close, reason);
  }
}
