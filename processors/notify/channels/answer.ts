import type { IncomingHttpHeaders } from 'node:http';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import type { Attempt } from '../channel.ts';
import { GuardError } from './guard/connect.ts';
import type { HttpAnswer } from './http-post.ts';
import { oneLine } from './one-line.ts';

const maxText = 512;
/** Nobody may put us off for longer than we would try at all. */
const maxRetryAfterMs = 24 * 3_600_000;

/**
 * A receiver's text as it may be stored and shown: one line, no control or invisible characters, at most 512 of them. What is
 * given as secret is blotted out, for receivers that repeat what they were sent.
 */
export function cleanAnswer(text: string, secrets: readonly string[] = []): string {
  let clean = text;
  for (const secret of secrets) if (secret.length >= 8) clean = clean.replaceAll(secret, '***');
  return oneLine(clean, maxText);
}

/**
 * `Retry-After` in ms (RFC 9110 §10.2.3: seconds, or an HTTP date), at most a day. Undefined when there is none, or none that can be read.
 * @param now ms since 1970
 */
function retryAfterMs(headers: IncomingHttpHeaders, now: number): number | undefined {
  const text = headers['retry-after']?.trim();
  if (text === undefined || text === '') return undefined;
  // A date begins with the day's name: what Date.parse makes of other texts is anybody's guess.
  const ms = /^\d{1,10}$/.test(text) ? Number(text) * 1_000 : /^[A-Za-z]{3}/.test(text) ? Date.parse(text) - now : Number.NaN;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), maxRetryAfterMs) : undefined;
}

/** Later, and with the receiver's own time if it named one. */
export function retry(answer: HttpAnswer, text: string, now: number): Attempt {
  const after = retryAfterMs(answer.headers, now);
  return { outcome: 'retry', status: answer.status, answer: text, ...(after === undefined ? {} : { retryAfterMs: after }) };
}

/** An exchange that came to no answer: refused by the guard for good, anything else for now. */
export function noAnswer(error: unknown): Attempt {
  const refused = error instanceof GuardError;
  return { outcome: refused ? 'failed' : 'retry', answer: cleanAnswer(describe(error)) };
}

function describe(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  const known = code === undefined ? undefined : knownFaults[code];
  return known ?? messageOf(error);
}

const knownFaults: Readonly<Record<string, string>> = {
  ENOTFOUND: 'the host name does not exist',
  ENODATA: 'the host name has no address',
  ESERVFAIL: 'the name servers fail for this host name',
  ETIMEOUT: 'the name servers do not answer for this host name',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the receiver closed the connection without an answer',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
  EPROTO: 'the receiver does not speak TLS at this port',
  CERT_HAS_EXPIRED: 'the receiver’s certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the receiver’s certificate is self-signed',
  SELF_SIGNED_CERT_IN_CHAIN: 'the receiver’s certificate is signed by nobody who is trusted',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'the receiver’s certificate comes without those that lead to one that is trusted',
  ERR_TLS_CERT_ALTNAME_INVALID: 'the receiver’s certificate is for another host name',
};
