import type { Principal } from '../runtime/http.ts';

/** Limits of one key that replace the configured ones. */
export interface KeyLimits {
  /** Connections at once. */
  readonly connections?: number;
  /** Subscriptions of one connection. */
  readonly subscriptions?: number;
  /** Commands a second. */
  readonly commands?: number;
  /** Name of the tier that says how many queries it may make (`HEADWATER_QUERY_TIERS`). */
  readonly tier?: string;
}

/** A row of `headwater.api_keys`, without the hash. `keyId` is its `id`. */
export interface ApiKey extends Principal {
  readonly limits?: KeyLimits;
  /** When it was revoked, ms since 1970. */
  readonly revokedAt?: number;
}

/** Where API keys are looked up. Revoked and expired keys are found too: the caller judges. */
export interface KeyStore {
  /**
   * The key whose SHA-256 (of the key's UTF-8 text) is this, in 64 lower-case hex digits; undefined when there is none.
   * Rejects when the store cannot be asked: that says nothing of the key.
   */
  find(sha256Hex: string): Promise<ApiKey | undefined>;
}
