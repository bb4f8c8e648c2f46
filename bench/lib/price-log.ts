import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import type { BenchContext } from './bench.ts';
import type { Scope } from './scope.ts';

export const priceStream = 'EVENTS';
const subject = 'ev';
const perBatch = 1_000;

/** A log of changes of so many rows in turn, as capture writes it, without the database: what is measured is the reading. */
export async function fillPriceLog({ servers, signal }: BenchContext, events: number, rows: number, scope: Scope): Promise<void> {
  const settings = { stream: priceStream, subject, replicas: 1, maxAgeMs: undefined, maxBytes: undefined };
  const log = await JetStreamLog.create(servers.connection, settings, silentLogger());
  scope.defer(async () => {
    log.close();
    await servers.jsm.streams.delete(priceStream);
  });
  for (let from = 1; from <= events; from += perBatch) {
    signal.throwIfAborted();
    const batch = Array.from({ length: perBatch }, (_, i) => priceEvent(from + i, rows));
    await log.append(batch, from - 1);
  }
}

function priceEvent(n: number, rows: number): NewEvent {
  const token = `token ${(n * 7919) % rows}`;
  const event = {
    v: 1,
    id: `${n.toString(16).toUpperCase().padStart(16, '0')}.00000001`,
    type: 'row',
    op: 'update',
    table: 'public.prices',
    key: { token_id: token },
    after: { token_id: token, price: `${n}.50`, note: 'a row like others, of some 200 bytes' },
    tx: { xid: n, idx: 0, last: true },
    at: new Date(Date.UTC(2026, 10, 22) + n).toISOString().replace('Z', '000Z'),
  };
  return { subject: `${subject}.public.prices.update`, data: Buffer.from(JSON.stringify(event)) };
}
