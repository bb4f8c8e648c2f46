import type { KeyLimits } from '../pipeline/keys/key-store.ts';
import type { Config } from '../pipeline/runtime/config.ts';
import type { ConnectionLimits } from './server-frames.ts';
import { maxFrameBytes } from './websocket.ts';

/** What holds for a key: its own limits where it has some, else the configured ones. */
export function limitsOf(config: Config, own: KeyLimits = {}): ConnectionLimits {
  const commandsPerSecond = own.commands ?? config.limitCommands;
  return {
    connections: own.connections ?? config.limitConnections,
    subscriptions: own.subscriptions ?? config.limitSubscriptions,
    filterValues: config.limitFilterValues,
    commandsPerSecond,
    commandsBurst: Math.max(config.limitCommandsBurst, commandsPerSecond),
    frameBytes: maxFrameBytes,
  };
}

/** Counts the connections of each key on this node. */
export class KeyConnections {
  readonly #counts = new Map<string, number>();

  /** Counts one more, unless that would be more than `most`. */
  enter(keyId: string, most: number): boolean {
    const count = this.#counts.get(keyId) ?? 0;
    if (count >= most) return false;
    this.#counts.set(keyId, count + 1);
    return true;
  }

  of(keyId: string): number {
    return this.#counts.get(keyId) ?? 0;
  }

  leave(keyId: string): void {
    const count = (this.#counts.get(keyId) ?? 0) - 1;
    if (count > 0) this.#counts.set(keyId, count);
    else this.#counts.delete(keyId);
  }
}
