import type { PgClient } from '../clients/postgres.ts';
import type { JetStreamLog } from '../log/jetstream-log.ts';
import type { Logger } from '../runtime/logging.ts';
import type { LogRecord } from './log-record.ts';

/**
 * How a new epoch begins: `resnapshot` copies everything before streaming; `accept_gap` streams at once, says in the log that
 * there is a gap, and copies everything by backfill.
 */
export type Reset = 'resnapshot' | 'accept_gap';

/**
 * Leaves the old history behind: the slot is dropped, and the log's next event begins a new epoch. Asked for by an operator
 * through the log's record; done by capture, which removes the request only when all of it is done.
 */
export async function resetHistory(
  reset: Reset,
  parts: { control: PgClient; slot: string; eventLog: JetStreamLog; record: LogRecord; log: Logger },
): Promise<void> {
  const { control, slot, eventLog, record, log } = parts;
  await control.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [slot]);
  const epoch = await eventLog.renewEpoch();
  const { epochStart } = await eventLog.bounds();
  await record.put('epoch', epoch);
  for (const key of ['system_identifier', 'timeline', 'position', 'torn'] as const) await record.forget(key);
  await record.forgetCopies();
  log.warn({ epoch, from: epochStart, reset }, 'a new epoch begins, as was asked for');
}
