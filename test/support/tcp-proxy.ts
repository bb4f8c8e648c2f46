import { connect, createServer, type Socket } from 'node:net';
import { once } from 'node:events';

/** A TCP proxy whose network can be cut, and whose target can be replaced. */
export interface TcpProxy {
  readonly port: number;
  /** Breaks all connections, and refuses new ones until `restore`. */
  cut(): void;
  /** Keeps connections open but passes nothing on, until `restore`. */
  stall(): void;
  restore(targetPort?: number): void;
  close(): Promise<void>;
}

/** @param passes asked of all that clients send, in pieces as they come: what does not pass is lost */
export async function tcpProxy(targetPort: number, passes: (sent: Buffer) => boolean = () => true): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  let target = targetPort;
  let state: 'open' | 'cut' | 'stalled' = 'open';
  const follow = (socket: Socket, other: Socket, lets: (sent: Buffer) => boolean = () => true): void => {
    sockets.add(socket);
    socket.on('data', (data: Buffer) => {
      if (state === 'open' && lets(data)) other.write(data);
    });
    socket.on('error', () => undefined);
    socket.once('close', () => {
      sockets.delete(socket);
      other.destroy();
    });
  };
  const breakAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const server = createServer((client) => {
    if (state === 'cut') {
      client.destroy();
      return;
    }
    const upstream = connect(target, '127.0.0.1');
    follow(client, upstream, passes);
    follow(upstream, client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  return {
    port: address.port,
    cut() {
      state = 'cut';
      breakAll();
    },
    stall() {
      state = 'stalled';
    },
    restore(to = target) {
      // What a stall has swallowed cannot be made good.
      breakAll();
      target = to;
      state = 'open';
    },
    async close() {
      breakAll();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
