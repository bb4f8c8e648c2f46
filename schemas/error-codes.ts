/** How an error code reaches an application. */
interface ErrorUse {
  /** Status of the HTTP answer whose body carries it. */
  readonly status?: number;
  /** It comes in an `error` frame, and the connection stays open. */
  readonly frame?: true;
  /** WebSocket close code; an `error` frame with the code's name comes right before it. */
  readonly close?: number;
}

/**
 * Every error code of the gateway. What each means and what to do about it is in docs/errors.md. Of the close codes,
 * 4000 to 4099 and the 10xx ones invite the client to come back and resume; from 4400 on, coming back the same way
 * would end the same way.
 */
export const errorCodes = {
  bad_request: { status: 400, frame: true, close: 4400 },
  bad_query: { status: 400 },
  bad_cursor: { status: 400 },
  query_too_costly: { status: 400 },
  query_too_large: { status: 400 },
  query_timeout: { status: 400 },
  unauthorized: { status: 401, frame: true, close: 4401 },
  forbidden: { status: 403, frame: true, close: 4403 },
  not_found: { status: 404 },
  method_not_allowed: { status: 405 },
  conflict: { status: 409 },
  precondition_failed: { status: 412 },
  too_large: { status: 413 },
  unsupported_media_type: { status: 415 },
  upgrade_required: { status: 426 },
  rate_limited: { status: 429, frame: true, close: 4005 },
  internal: { status: 500, frame: true, close: 1011 },
  overload: { status: 503, frame: true, close: 1013 },
  unavailable: { status: 503 },
  not_visible: { status: 504 },
  unknown_channel: { frame: true },
  bad_filter: { frame: true },
  bad_token: { frame: true },
  epoch_changed: { frame: true },
  resume_expired: { frame: true },
  position_ahead: { frame: true },
  replay_busy: { frame: true },
  snapshot_unavailable: { frame: true },
  connection_limit: { frame: true, close: 4404 },
  connect_timeout: { close: 4402 },
  revoked: { close: 4405 },
  auth_expired: { close: 4003 },
  heartbeat: { close: 4002 },
  slow_consumer: { close: 4001 },
  position_lost: { close: 4004 },
  restart: { close: 1012 },
} as const satisfies Readonly<Record<string, ErrorUse>>;

type Codes = typeof errorCodes;
type CodeWith<Use> = { [Code in keyof Codes]: Codes[Code] extends Use ? Code : never }[keyof Codes];

/** Codes of the bodies of HTTP answers. */
export type HttpErrorCode = CodeWith<{ readonly status: number }>;
/** Codes of `error` frames that leave the connection open. */
export type FaultCode = CodeWith<{ readonly frame: true }>;
/** Why the gateway closes a connection. */
export type CloseReason = CodeWith<{ readonly close: number }>;
