import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { Socket } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';

/** Bytes that a frame of a client may have. */
export const maxFrameBytes = 64 * 1024;

/** What happens on a socket. `binary` is a frame that is no text. */
export interface SocketEvents {
  text(text: string): void;
  binary(): void;
  pong(): void;
  /** Nothing is unsent any more, after there was too much. */
  drained(): void;
  /** Once, and nothing after it. */
  closed(code: number): void;
}

/** An open WebSocket. It takes whole frames that are ready to be written, so that one encoding serves many. */
export interface GatewaySocket {
  /** Bytes that the operating system has not taken yet. */
  readonly unsentBytes: number;
  /** Bytes that it has taken in all. */
  readonly sentBytes: number;
  /** False once closing has begun: nothing more may be written. */
  readonly open: boolean;
  listen(events: SocketEvents): void;
  write(frames: Buffer): void;
  /** Begins the closing handshake, behind everything that was written. */
  close(code: number, reason: string): void;
  terminate(): void;
}

/** Completes upgrades of HTTP requests. */
export interface Acceptor {
  accept(request: IncomingMessage, socket: Duplex, head: Buffer, opened: (socket: GatewaySocket) => void): void;
}

/**
 * The WebSocket server: the handshake and the reading side are the library's; frames are written to the socket beneath it.
 * @param onMalformed answers and closes a socket whose handshake is none
 */
export function createAcceptor(onMalformed: (socket: Duplex, message: string) => void): Acceptor {
  const server = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false, maxPayload: maxFrameBytes });
  server.on('wsClientError', (error, socket) => onMalformed(socket, error.message));
  return {
    accept: (request, socket, head, opened) => server.handleUpgrade(request, socket, head, (webSocket) => opened(wrap(webSocket, socket))),
  };
}

function wrap(webSocket: WebSocket, stream: Duplex): GatewaySocket {
  const socket = stream instanceof Socket ? stream : undefined;
  return {
    get unsentBytes() {
      return stream.writableLength;
    },
    get sentBytes() {
      return (socket?.bytesWritten ?? 0) - stream.writableLength;
    },
    get open() {
      return webSocket.readyState === WebSocket.OPEN && stream.writable;
    },
    listen: (events) => listen(webSocket, stream, events),
    write: (frames) => void stream.write(frames),
    close: (code, reason) => webSocket.close(code, reason.slice(0, 120)),
    terminate: () => webSocket.terminate(),
  };
}

function listen(webSocket: WebSocket, stream: Duplex, events: SocketEvents): void {
  webSocket.on('message', (data: Buffer, isBinary: boolean) => (isBinary ? events.binary() : events.text(data.toString('utf8'))));
  webSocket.on('pong', () => events.pong());
  stream.on('drain', () => events.drained());
  // The library answers a breach of the protocol (1002, 1007, 1009) by closing; `close` follows.
  webSocket.on('error', () => undefined);
  webSocket.on('close', (code) => events.closed(code));
}
