import type { GatewaySocket } from './websocket.ts';

/** Unsent bytes above which live delivery gives up. */
export const liveHighWater = 1024 * 1024;

export interface OutboxParts {
  readonly socket: GatewaySocket;
  /** The first frame since the last write has come. */
  readonly onFirst: () => void;
  readonly onWritten: (bytes: number) => void;
}

/** Frames that wait to be written to a socket together, and how much of what it has not sent is live. */
export class Outbox {
  readonly #parts: OutboxParts;
  #frames: Buffer[] = [];
  /** Live bytes since the socket was last seen without anything unsent, and those of them in `#frames`. */
  #liveBytes = 0;
  #liveInFrames = 0;

  constructor(parts: OutboxParts) {
    this.#parts = parts;
  }

  push(frame: Buffer): void {
    this.#frames.push(frame);
    if (this.#frames.length === 1) this.#parts.onFirst();
  }

  pushLive(frame: Buffer): void {
    this.#liveBytes += frame.length;
    this.#liveInFrames += frame.length;
    this.push(frame);
  }

  clear(): void {
    this.#frames = [];
  }

  /** Writes what has been collected; false, and forgets it, when the reader has left more than `liveHighWater` of live events unsent. */
  flush(): boolean {
    const { socket } = this.#parts;
    const unsent = socket.open ? socket.unsentBytes : 0;
    const isSlow = unsent > liveHighWater && this.#liveBytes > liveHighWater;
    if (!socket.open || isSlow) this.clear();
    else {
      if (unsent === 0) this.#liveBytes = this.#liveInFrames;
      this.write();
    }
    return !isSlow;
  }

  write(): void {
    if (this.#frames.length === 0) return;
    const bytes = this.#frames.length === 1 ? this.#frames[0]! : Buffer.concat(this.#frames);
    this.#frames = [];
    this.#liveInFrames = 0;
    this.#parts.onWritten(bytes.length);
    this.#parts.socket.write(bytes);
  }
}
