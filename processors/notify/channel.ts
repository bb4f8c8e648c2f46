/** One notification as a channel delivers it. All of it is JSON. */
export interface Notice {
  /** Stable over every attempt and every restart: the receiver's key against duplicates. */
  readonly id: string;
  readonly type: 'alert.firing' | 'alert.resolved' | 'alert.digest';
  /** When the transition happened (log time, ISO 8601). */
  readonly timestamp: string;
  readonly data: NoticeData | DigestData;
}

/** HTTP names are camelCase; the event is as it stands in the log. */
export interface NoticeData {
  readonly alert: NoticeAlert;
  readonly rule: NoticeRule;
  readonly event: unknown;
}

export interface NoticeAlert {
  readonly id: string;
  readonly state: 'firing' | 'resolved';
  readonly entity: Readonly<Record<string, unknown>>;
  readonly severity: 'info' | 'warning' | 'critical';
  readonly value: string | null;
  readonly firedAt: string;
  readonly firedSeq: number;
  readonly resolvedAt?: string;
  readonly resolvedSeq?: number;
  readonly reason?: string;
}

export interface NoticeRule {
  readonly id: string;
  readonly revision: number;
  readonly name: string;
  readonly table: string;
  /** The condition as text, for people to read. */
  readonly condition: string;
}

/** Many transitions in one notice. */
export interface DigestData {
  readonly firing: number;
  readonly resolved: number;
  /** The first of them, at most 20. */
  readonly alerts: readonly { readonly alert: NoticeAlert; readonly rule: NoticeRule }[];
}

/** Where it goes. `secrets`: the one to sign with, and those of before that a receiver may still check against. */
export type Target =
  | { readonly channel: 'webhook'; readonly url: string; readonly secrets: readonly string[] }
  | { readonly channel: 'email'; readonly to: string }
  | { readonly channel: 'push'; readonly deviceId: string; readonly endpoint: string; readonly p256dh: string; readonly auth: string };

/**
 * How an attempt ended. `retry`: later, not before `retryAfterMs` when the receiver asked for that. `failed`: it never will.
 * `gone`: neither will any other to this target (410 of a webhook, 404 or 410 of a push endpoint).
 */
export interface Attempt {
  readonly outcome: 'delivered' | 'retry' | 'failed' | 'gone';
  /** HTTP or SMTP status, where there was one. */
  readonly status?: number;
  /** The beginning of the receiver's answer, or what went wrong; no secrets. */
  readonly answer?: string;
  readonly retryAfterMs?: number;
}

/** A way to reach people. Never throws for what the receiver does: that is an `Attempt`. */
export interface Channel {
  deliver(notice: Notice, target: Target, signal: AbortSignal): Promise<Attempt>;
  close(): Promise<void>;
}
