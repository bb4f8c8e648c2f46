import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { order, tell } from './commits.ts';

export interface ReceiverOrder {
  /** Alerts that will be told of. */
  readonly alerts: number;
}

export interface Deliveries {
  /** Row whose alert was told of → when the first notice of its firing arrived, in ns of the monotonic clock. */
  readonly at: ReadonlyMap<number, number>;
  /** Notices of a firing that came again. */
  readonly repeated: number;
}

interface Notice {
  readonly type: string;
  readonly data: { readonly alert: { readonly entity: { readonly id: number } } };
}

const { alerts } = await order<ReceiverOrder>();
const at = new Map<number, number>();
let repeated = 0;
const server = createServer((request, response) => {
  const now = Number(process.hrtime.bigint());
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    response.end();
    record(JSON.parse(Buffer.concat(chunks).toString('utf8')) as Notice, now);
  });
});
server.listen(0, '127.0.0.1', () => tell((server.address() as AddressInfo).port));

function record({ type, data }: Notice, now: number): void {
  if (type !== 'alert.firing') return;
  const { id } = data.alert.entity;
  if (at.has(id)) repeated++;
  else at.set(id, now);
  if (at.size === alerts) tell({ at, repeated } satisfies Deliveries);
}
