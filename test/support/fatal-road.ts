import { tcpProxy } from './tcp-proxy.ts';

/** The way of a process to its server, on which something can be made to happen at any step of its work. */
export interface FatalRoad {
  /** The server's URL by this way. */
  readonly url: string;
  /** How many pieces have been sent since `at`. */
  readonly sent: number;
  /**
   * When the nth piece from now on has been sent, and before it arrives, `act` is called; what does not pass is lost.
   * @param from the first piece that counts: the first of which this is true
   */
  at(nth: number, act: () => 'passes' | 'lost', from?: (piece: Buffer) => boolean): void;
  close(): Promise<void>;
}

/**
 * A request to a server is a step of the work of whoever sends it: a process that is killed right before or right after one of them is killed at any
 * step, also at those that take no time.
 */
export async function fatalRoad(serverUrl: string): Promise<FatalRoad> {
  const url = new URL(serverUrl);
  let [sent, left] = [0, Infinity];
  let act: () => 'passes' | 'lost' = () => 'passes';
  let from: ((piece: Buffer) => boolean) | undefined;
  const proxy = await tcpProxy(Number(url.port), (piece) => {
    sent++;
    if (from?.(piece) === false) return true;
    from = undefined;
    return --left !== 0 || act() === 'passes';
  });
  url.hostname = '127.0.0.1';
  url.port = String(proxy.port);
  return {
    url: url.toString(),
    get sent() {
      return sent;
    },
    at(nth, what, first) {
      [sent, left, act, from] = [0, nth, what, first];
    },
    close: () => proxy.close(),
  };
}
