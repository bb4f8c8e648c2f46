import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { request as secureRequest } from 'node:https';
import type { GuardedAgents } from './guard/connect.ts';

/** What a receiver answered. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The beginning of the body, at most 4 KB. */
  readonly body: Buffer;
}

export interface HttpPost {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const maxAnswerBytes = 4_096;

/**
 * One POST through the guarded agents. Follows no redirects, and reads no more of the answer than its beginning.
 * @param signal ends the exchange wherever it is: resolving, connecting, TLS, waiting, reading
 * @throws GuardError for an address that is refused; the signal's reason; what sockets and TLS throw
 */
export async function post(agents: GuardedAgents, exchange: HttpPost, signal: AbortSignal): Promise<HttpAnswer> {
  const first = await attempt(agents, exchange, signal);
  if (first !== 'stale') return first;
  // The server closed a connection that was kept, while we took it for another request: this says nothing about the server.
  const second = await attempt(agents, exchange, signal);
  if (second === 'stale') throw new Error('the receiver closes kept connections without an answer');
  return second;
}

function attempt(agents: GuardedAgents, { url, headers, body }: HttpPost, signal: AbortSignal): Promise<HttpAnswer | 'stale'> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? secureRequest : request;
    const sent = send(url, {
      method: 'POST',
      agent: agents.agentFor(url),
      headers: { ...headers, 'content-length': String(body.length) },
      signal,
    });
    let answered = false;
    sent.on('response', (response) => {
      answered = true;
      beginning(response).then((read) => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: read }), reject);
    });
    // Without an answer that we can use, an upgrade to another protocol say.
    sent.on('close', () => answered || reject(new Error('the receiver closed the connection without an answer')));
    sent.on('error', (error: NodeJS.ErrnoException) => {
      const stale = sent.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
      if (answered) return;
      if (signal.aborted) reject(signal.reason as Error);
      else if (stale) resolve('stale');
      else reject(error);
    });
    sent.end(body);
  });
}

/**
 * The beginning of the body. The status has come by then and counts: a body that breaks off or never ends changes nothing. Leaving the
 * loop early destroys the connection, so that a receiver cannot keep us reading.
 */
async function beginning(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= maxAnswerBytes) break;
    }
  } catch {
    // What has come is what there is.
  }
  return Buffer.concat(chunks).subarray(0, maxAnswerBytes);
}
