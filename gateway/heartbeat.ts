import { pingMs } from './session.ts';
import type { GatewaySocket } from './websocket.ts';

const graceMs = 10_000;
const stallMs = 10_000;

/** `ping`: send one now. `slow`: live, and nothing was taken for too long. `dead`: no answer to a ping. */
export type Verdict = 'ok' | 'ping' | 'slow' | 'dead';

/** Tells dead and stuck connections from quiet ones. A connection that replays is given all the time it takes. */
export class Heartbeat {
  #pingAt: number;
  #awaiting = false;
  #sentBytes = 0;
  #progressAt: number;

  constructor(now: number) {
    this.#pingAt = now;
    this.#progressAt = now;
  }

  /** Something came from the client. */
  heard(): void {
    this.#awaiting = false;
  }

  check(
    now: number,
    { sentBytes, unsentBytes, open }: Pick<GatewaySocket, 'sentBytes' | 'unsentBytes' | 'open'>,
    replaying: boolean,
  ): Verdict {
    if (!open) return 'ok';
    if (unsentBytes === 0 || sentBytes !== this.#sentBytes) this.#progressAt = now;
    this.#sentBytes = sentBytes;
    // A pong waits behind everything that is unsent: with a replay under way its absence says nothing.
    const busy = replaying && unsentBytes > 0;
    if (!busy && unsentBytes > 0 && now - this.#progressAt >= stallMs) return 'slow';
    if (this.#awaiting) {
      if (busy || unsentBytes > 0) this.#pingAt = now;
      return now - this.#pingAt >= graceMs ? 'dead' : 'ok';
    }
    if (now - this.#pingAt < pingMs) return 'ok';
    this.#pingAt = now;
    this.#awaiting = true;
    return 'ping';
  }
}
