import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { certificate, key } from './certificate.ts';

export interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export type Answer = (response: ServerResponse, received: Received, socket: Socket) => void;

/** An HTTP server that keeps what it gets, and answers as it is told. */
export interface Receiver {
  readonly port: number;
  readonly received: Received[];
  /** Connections that were opened, whether or not something came over them. */
  connections: number;
  /** Bytes that have come in, over all connections. */
  bytes: number;
  answer: Answer;
  close(): Promise<void>;
}

export async function startReceiver({ tls = false, host = '127.0.0.1' } = {}): Promise<Receiver> {
  const sockets = new Set<Socket>();
  const receiver = { received: [] as Received[], connections: 0, bytes: 0, answer: ((response) => response.end()) as Answer };
  const server = tls ? createSecureServer({ cert: certificate, key }) : createServer();
  server.on('request', (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const received = { path: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks) };
      receiver.received.push(received);
      receiver.answer(response, received, request.socket);
    });
  });
  server.on('connection', (socket: Socket) => {
    receiver.connections++;
    sockets.add(socket);
    socket.on('data', (chunk: Buffer) => (receiver.bytes += chunk.length));
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => void server.listen(0, host, resolve));
  return Object.assign(receiver, {
    port: (server.address() as AddressInfo).port,
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
