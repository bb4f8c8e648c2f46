import { ServerResponse, STATUS_CODES, type IncomingMessage, type Server } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errorBody } from '../pipeline/runtime/http.ts';
import type { Config } from '../pipeline/runtime/config.ts';
import { errorCodes, type HttpErrorCode } from '../schemas/error-codes.ts';
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
  readonly code: HttpErrorCode;
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
  if (url.split('?', 1)[0] !== realtimePath) return { code: 'not_found', message: `WebSockets are at ${realtimePath}` };
  if (hasKeyInUrl(url)) return { code: 'bad_request', message: keyInUrlMessage };
  const { origin } = request.headers;
  if (origin !== undefined && config.origins.length > 0 && !config.origins.includes(origin))
    return { code: 'forbidden', message: 'this origin may not connect' };
  const waitMs = connects.take(addressGroup(address.of(request)), config.limitConnects, config.limitConnects, performance.now());
  if (waitMs > 0)
    return {
      code: 'rate_limited',
      message: 'too many new connections from this address',
      retryAfterS: Math.ceil(waitMs / 1_000),
    };
  if (!ready()) return { code: 'overload', message: 'the log cannot be read yet, try again', retryAfterS: 1 };
  return undefined;
}

/** Answers an upgrade with an ordinary HTTP error, and closes. */
export function refuseUpgrade(socket: Duplex, { code, message, retryAfterS }: Refusal): void {
  const { status } = errorCodes[code];
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

/** Does the request ask for another protocol than WebSocket, and has no body? Some clients offer HTTP/2 with every request. */
export function offersOther({ headers }: IncomingMessage): boolean {
  const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
  return !hasBody && headers.upgrade?.toLowerCase() !== 'websocket';
}

/** Serves such a request in the protocol it came in, as a server may (RFC 9110, section 7.8). */
export function ignoreUpgrade(server: Server, request: IncomingMessage, socket: Duplex): void {
  if (!(socket instanceof Socket)) return void socket.destroy();
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => socket.end());
  server.emit('request', request, response);
}

/** The credential that came with the upgrade, if one did. */
export function credentialOf(request: IncomingMessage): Credential | undefined {
  const { authorization } = request.headers;
  if (authorization === undefined) return undefined;
  const apiKey = bearerOf(authorization);
  return apiKey === undefined ? { kind: 'unsupported' } : { kind: 'apiKey', apiKey };
}
