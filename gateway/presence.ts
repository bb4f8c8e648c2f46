/** What is known of one connection, for `headwater status` and for limits across nodes. */
export interface ConnectionRecord {
  readonly connection: string;
  readonly keyId: string;
  /** ms since 1970. */
  readonly since: number;
  readonly subscriptions: number;
}

/**
 * Where connections are listed beyond this process, with a time to live. It is a convenience: when it fails, neither
 * delivery nor resuming suffers. Neither method throws or waits for anybody.
 */
export interface Presence {
  /** Adds or renews; called about every 20 s for each connection. */
  set(record: ConnectionRecord): void;
  remove(connection: string): void;
}
