import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { bytes, cstring, int16, int32, int64, message } from './pgoutput-bytes.ts';

/**
 * The server's side of a replication connection, as far as a reader of it sees: it takes any start-up and any query, and
 * once streaming has been asked for sends what a test tells it to, in the pieces the test wants.
 */
export interface ReplicationServer {
  readonly url: string;
  /** Positions that the reader has reported as flushed, one for each of its status messages. */
  readonly statuses: readonly bigint[];
  /** Resolves when streaming has been asked for, with the command. */
  readonly started: Promise<string>;
  /** Writes bytes, as one piece on the wire. */
  send(data: Buffer): Promise<void>;
  /** Ends the reader's connection. */
  disconnect(): void;
  close(): Promise<void>;
}

/** @param answer sent in place of the start of streaming */
export async function replicationServer(answer: Buffer = copyBoth()): Promise<ReplicationServer> {
  const statuses: bigint[] = [];
  let socket: Socket | undefined;
  let begin!: (command: string) => void;
  const started = new Promise<string>((resolve) => (begin = resolve));
  const server = createServer((connected) => {
    socket = connected.setNoDelay();
    let waiting = Buffer.alloc(0);
    let greeted = false;
    connected.on('error', () => undefined);
    connected.on('data', (chunk) => {
      waiting = Buffer.concat([waiting, chunk]);
      for (;;) {
        // The start-up message alone has no type in front of its length.
        const head = greeted ? 1 : 0;
        if (waiting.length < head + 4 || waiting.length < head + waiting.readInt32BE(head)) return;
        const end = head + waiting.readInt32BE(head);
        handle(waiting.subarray(0, end));
        waiting = waiting.subarray(end);
      }
    });
    const handle = (received: Buffer): void => {
      if (!greeted) {
        greeted = true;
        connected.write(bytes(message('R', int32(0)), message('Z', 'I')));
        return;
      }
      const kind = String.fromCharCode(received[0]!);
      const query = received.toString('utf8', 5, received.length - 1);
      if (kind === 'd') statuses.push(received.readBigUInt64BE(14));
      else if (kind === 'Q' && query.startsWith('START_REPLICATION')) {
        begin(query);
        connected.write(answer);
      } else if (kind === 'Q') connected.write(bytes(message('C', cstring('SET')), message('Z', 'I')));
    };
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    url: `postgres://someone@127.0.0.1:${port}/db`,
    statuses,
    started,
    send: (data) => new Promise((resolve, reject) => socket!.write(data, (error) => (error ? reject(error) : resolve()))),
    disconnect: () => socket?.destroy(),
    async close() {
      socket?.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function copyBoth(): Buffer {
  return message('W', '\0', int16(0));
}

/** A message of the output plugin, as the walsender wraps it. */
export function walData(end: bigint, payload: Buffer): Buffer {
  return message('d', 'w', int64(end), int64(end), int64(0n), payload);
}

/** A keep-alive that tells how far the server is, and may ask for an answer. */
export function keepAlive(end: bigint, answer: boolean): Buffer {
  return message('d', 'k', int64(end), int64(0n), answer ? '\x01' : '\0');
}

export function errorResponse(code: string, text: string): Buffer {
  return message('E', cstring('SERROR'), cstring(`C${code}`), cstring(`M${text}`), '\0');
}
