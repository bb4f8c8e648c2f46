import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { certificate, key } from '../channels/support/certificate.ts';

export interface Received {
  readonly at: number;
  /** Of a webhook. */
  readonly id: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The body as UTF-8. */
  readonly text: string;
}

export type Answer = (response: ServerResponse, received: Received, socket: Socket) => void;

/** An HTTP server that keeps what it gets, and answers as it is told. */
export interface Receiver {
  readonly port: number;
  /** Of a webhook over HTTP. */
  readonly url: string;
  readonly received: Received[];
  /** Connections that were opened, whether or not something came over them. */
  connections: number;
  /** Bytes that have come in, over all connections. */
  bytes: number;
  answer: Answer;
  /** Different ids received. */
  ids(): Set<string>;
  /** Closes the port and all connections, as a crash does. */
  close(): Promise<void>;
}

export async function startReceiver({ tls = false, host = '127.0.0.1', port = 0 } = {}): Promise<Receiver> {
  const sockets = new Set<Socket>();
  const received: Received[] = [];
  const receiver = { received, connections: 0, bytes: 0, answer: answers(200), ids: () => new Set(received.map(({ id }) => id)) };
  const server = tls ? createSecureServer({ cert: certificate, key }) : createServer();
  server.on('request', (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { headers, url = '', socket } = request;
      const body = Buffer.concat(chunks);
      const one = { at: performance.now(), id: String(headers['webhook-id']), path: url, headers, body, text: body.toString('utf8') };
      received.push(one);
      receiver.answer(response, one, socket);
    });
  });
  server.on('connection', (socket: Socket) => {
    receiver.connections++;
    sockets.add(socket);
    socket.on('data', (chunk: Buffer) => (receiver.bytes += chunk.length));
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => void server.listen(port, host, resolve));
  const address = server.address() as AddressInfo;
  return Object.assign(receiver, {
    port: address.port,
    url: `http://127.0.0.1:${address.port}/hook`,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  });
}

/** Answers with a status, headers and a text. */
export function answers(status: number, text = '', headers: Record<string, string> = {}): Answer {
  return (response) => {
    response.writeHead(status, headers);
    response.end(text);
  };
}
