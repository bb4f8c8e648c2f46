import { STATUS_CODES, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { errorBody } from '../pipeline/runtime/http.ts';
import type { Config } from '../pipeline/runtime/config.ts';
import { bearerOf } from './authenticator.ts';
import { addressGroup, type ClientAddress } from './client-address.ts';
import type { Credential } from './client-frames.ts';
import type { TokenBuckets } from './token-bucket.ts';

/** Where the WebSocket is. */
export const realtimePath = '/v2/realtime';

const keyParameters = /^(api[-_]?key|key|token|access[-_]?token|auth|authorization|bearer|jwt)$/i;

/** Does the URL carry a key? It would end up in logs and histories. */
export function hasKeyInUrl(url: string): boolean {
  const query = url.indexOf('?');
  return query >= 0 && [...new URLSearchParams(url.slice(query + 1)).keys()].some((name) => keyParameters.test(name));
}

export const keyInUrlMessage = 'keys do not belong in URLs: send an Authorization header, or auth in the first frame';

/** Why an upgrade is refused, as an HTTP answer. */
interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly retryAfterS?: number;
}

export interface AdmissionServices {
  readonly config: Config;
  readonly address: ClientAddress;
  /** New connections by address. */
  readonly connects: TokenBuckets;
  readonly ready: () => boolean;
}

/** Is the upgrade refused? */
export function refusalOf(request: IncomingMessage, { config, address, connects, ready }: AdmissionServices): Refusal | undefined {
  const url = request.url ?? '';
  if (url.split('?', 1)[0] !== realtimePath) return { status: 404, code: 'not_found', message: `WebSockets are at ${realtimePath}` };
  if (hasKeyInUrl(url)) return { status: 400, code: 'bad_request', message: keyInUrlMessage };
  const { origin } = request.headers;
  if (origin !== undefined && config.origins.length > 0 && !config.origins.includes(origin))
    return { status: 403, code: 'forbidden', message: 'this origin may not connect' };
  const waitMs = connects.take(addressGroup(address.of(request)), config.limitConnects, config.limitConnects, performance.now());
  if (waitMs > 0)
    return {
      status: 429,
      code: 'rate_limited',
      message: 'too many new connections from this address',
      retryAfterS: Math.ceil(waitMs / 1_000),
    };
  if (!ready()) return { status: 503, code: 'overload', message: 'the log cannot be read yet, try again', retryAfterS: 1 };
  return undefined;
}

/** Answers an upgrade with an ordinary HTTP error, and closes. */
export function refuseUpgrade(socket: Duplex, { status, code, message, retryAfterS }: Refusal): void {
  const body = JSON.stringify(errorBody(code, message));
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`,
    'Connection: close',
    'Content-Type: application/json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...(retryAfterS === undefined ? [] : [`Retry-After: ${retryAfterS}`]),
  ];
  socket.once('finish', () => socket.destroy());
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`);
}

/** The credential that came with the upgrade, if one did. */
export function credentialOf(request: IncomingMessage): Credential | undefined {
  const { authorization } = request.headers;
  if (authorization === undefined) return undefined;
  const apiKey = bearerOf(authorization);
  return apiKey === undefined ? { kind: 'unsupported' } : { kind: 'apiKey', apiKey };
}
