import { connect, type Socket } from 'node:net';
import { order, tell } from './commits.ts';
import { zipf } from './zipf.ts';

export interface QueryLoad {
  readonly port: number;
  readonly key: string;
  /** Bodies of the queries, the most frequent first. */
  readonly bodies: readonly string[];
  readonly clients: number;
  /** How long a client rests before it asks again, on average; 0: not at all. */
  readonly restMs: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

export interface QueryFigures {
  /** Of each answer, in ms, after the warm-up. */
  readonly latencies: Float64Array;
  readonly hits: number;
  /** Answers that were none: status and start of the body. */
  readonly refused: readonly string[];
  readonly seconds: number;
}

const end = Buffer.from('\r\n\r\n');
const hit = Buffer.from('"cache":"hit"}');
const lengthPattern = /\r\ncontent-length: (\d+)/i;

/** One client: asks, waits for the answer, rests, and asks again. Plain sockets, so that the clients take as little of the machine as they can. */
class Client {
  readonly #socket: Socket;
  readonly #restMs: number;
  readonly #pick: () => Buffer;
  readonly #onAnswer: (ms: number, status: number, body: Buffer) => void;
  #unread: Buffer = Buffer.alloc(0);
  #askedAt = 0;
  #closed = false;

  constructor(port: number, restMs: number, pick: () => Buffer, onAnswer: (ms: number, status: number, body: Buffer) => void) {
    this.#restMs = restMs;
    this.#pick = pick;
    this.#onAnswer = onAnswer;
    this.#socket = connect({ host: '127.0.0.1', port, noDelay: true });
    this.#socket.on('connect', () => this.#rest());
    this.#socket.on('data', (chunk) => this.#take(chunk));
  }

  close(): void {
    this.#closed = true;
    this.#socket.destroy();
  }

  #ask(): void {
    if (this.#closed) return;
    this.#askedAt = performance.now();
    this.#socket.write(this.#pick());
  }

  #take(chunk: Buffer): void {
    const all = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk]);
    const head = all.indexOf(end);
    const length = head < 0 ? undefined : lengthPattern.exec(all.toString('latin1', 0, head))?.[1];
    if (length === undefined || all.length < head + 4 + Number(length)) {
      this.#unread = all;
      return;
    }
    this.#unread = Buffer.alloc(0);
    this.#onAnswer(performance.now() - this.#askedAt, Number(all.toString('latin1', 9, 12)), all.subarray(head + 4));
    this.#rest();
  }

  #rest(): void {
    if (this.#restMs === 0) this.#ask();
    else setTimeout(() => this.#ask(), this.#restMs * 2 * Math.random());
  }
}

const { port, key, bodies, clients, restMs, warmUpSeconds, seconds } = await order<QueryLoad>();
const requests = bodies.map((body) => {
  const head = `POST /v2/query HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\n`;
  return Buffer.from(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
});
const pick = zipf(requests.length);
const latencies: number[] = [];
const refused: string[] = [];
let hits = 0;
let counting = false;
const all = Array.from({ length: clients }, () => new Client(port, restMs, () => requests[pick()]!, record));
setTimeout(() => (counting = true), warmUpSeconds * 1_000);
setTimeout(
  () => {
    for (const client of all) client.close();
    tell({ latencies: Float64Array.from(latencies), hits, refused, seconds } satisfies QueryFigures);
  },
  (warmUpSeconds + seconds) * 1_000,
);

function record(ms: number, status: number, body: Buffer): void {
  if (status !== 200) refused.push(`${status} ${body.toString('utf8', 0, 200)}`);
  if (!counting) return;
  latencies.push(ms);
  if (body.length >= hit.length && body.subarray(body.length - hit.length).equals(hit)) hits++;
}
