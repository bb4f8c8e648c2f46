import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  readonly at: number;
  readonly id: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** A real HTTP server that keeps what it gets and answers as told. */
export interface Receiver {
  readonly url: string;
  readonly received: Received[];
  /** How to answer from now on; nothing is answered when it returns undefined. */
  answer: (received: Received, response: ServerResponse) => void;
  /** Different ids received. */
  ids(): Set<string>;
  /** Closes the port, as a crash does. */
  close(): Promise<void>;
}

export async function startReceiver(port = 0): Promise<Receiver> {
  const received: Received[] = [];
  const receiver = {
    received,
    answer: (_: Received, response: ServerResponse): void => void response.writeHead(200).end('ok'),
    ids: () => new Set(received.map(({ id }) => id)),
  };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const one = {
        at: performance.now(),
        id: String(request.headers['webhook-id']),
        path: request.url ?? '',
        headers: request.headers,
        body: Buffer.concat(chunks).toString('utf8'),
      };
      received.push(one);
      receiver.answer(one, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const address = server.address() as AddressInfo;
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return Object.assign(receiver, { url: `http://127.0.0.1:${address.port}/hook`, close });
}
