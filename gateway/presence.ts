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
 * delivery nor resuming suffers. No method throws or waits for anybody.
 */
export interface Presence {
  /** Adds or changes a connection; called within about a second of what it tells. */
  set(record: ConnectionRecord): void;
  remove(connection: string): void;
  /** How many connections the key has on other nodes, as of some seconds ago; 0 while that is not known. */
  elsewhere(keyId: string): number;
}
