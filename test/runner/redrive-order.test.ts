import { expect } from 'chai';
import fc from 'fast-check';
import type { LogEvent, NewEvent } from '../../pipeline/log/event-log.ts';
import { RedriveOrder } from '../../pipeline/runner/redrive/order.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { rowEvent } from '../support/row-events.ts';

const signal = new AbortController().signal;
const row = (id: number, n: number): { id: number; n: number } => ({ id, n });

/** The rows after an event, each as the number of the event that made it what it is. */
function fold(rows: Map<string, number>, { subject, data }: NewEvent): void {
  const { key, before, after } = JSON.parse(Buffer.from(data).toString()) as Record<string, { id: number; n: number }>;
  if (subject.endsWith('.truncate')) return rows.clear();
  if (before && key && before.id !== key.id) rows.delete(String(before.id));
  if (subject.endsWith('.delete')) rows.delete(String(key!.id));
  else rows.set(String(key!.id), after!.n);
}

async function logOf(events: readonly NewEvent[]): Promise<MemoryLog> {
  const log = new MemoryLog();
  await log.append(events, 0);
  return log;
}

describe('events that come late', () => {
  it('leave the rows as if they had come in time, and change none that is newer', async () => {
    const op = fc.tuple(fc.constantFrom('insert', 'update', 'delete', 'move', 'truncate'), fc.nat(4), fc.nat(4), fc.boolean());
    const histories = fc.array(op, { minLength: 1, maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(histories, async (history) => {
        const events = history.map(([kind, id, other], i) => {
          const n = i + 1;
          if (kind === 'truncate') return rowEvent(n, kind);
          if (kind === 'delete') return rowEvent(n, kind, { key: { id }, before: row(id, 0) });
          if (kind === 'move') return rowEvent(n, 'update', { key: { id: other }, before: row(id, 0), after: row(other, n) });
          return rowEvent(n, kind, { key: { id }, after: row(id, n) });
        });
        const log = await logOf(events);
        const poison = history.map(([kind, , , fails]) => fails && kind !== 'truncate');
        const [inTime, late] = [new Map<string, number>(), new Map<string, number>()];
        events.forEach((event, i) => {
          fold(inTime, event);
          if (!poison[i]) fold(late, event);
        });
        const letters = events.flatMap((event, i): LogEvent[] => (poison[i] ? [{ ...event, seq: i + 1 }] : []));
        const order = new RedriveOrder(log, {});
        for (const letter of letters) order.add(letter);
        await order.advance(signal);
        for (const letter of letters) {
          const due = order.due(letter);
          expect(due).to.not.have.property('unknown');
          if ('apply' in due) fold(late, due.apply);
          // Of a key that somebody else's row has got since, the row that has left it is brought by a backfill.
          else if ('superseded' in due && due.superseded.includes('backfill')) {
            const { key } = JSON.parse(Buffer.from(letter.data).toString()) as { key: { id: number } };
            for (const rows of [inTime, late]) rows.delete(String(key.id));
          }
        }
        expect(Object.fromEntries(late)).to.deep.equal(Object.fromEntries(inTime));
      }),
      { numRuns: 500 },
    );
  });

  it('are superseded also by what is logged after the first look, and by nothing of other tables', async () => {
    const log = await logOf([rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1 } })]);
    const letter = (await log.get(1))!;
    const order = new RedriveOrder(log, {});
    order.add(letter);
    await order.advance(signal);
    expect(order.due(letter)).to.deep.equal({ apply: letter });
    await log.append(
      [rowEvent(2, 'delete', { table: 'others', key: { id: 1 } }), rowEvent(3, 'update', { key: { id: 2 }, after: { id: 2 } })],
      1,
    );
    await order.advance(signal);
    expect(order.due(letter)).to.deep.equal({ apply: letter });
    await log.append([rowEvent(4, 'read', { key: { id: 1 }, after: { id: 1 } })], 3);
    await order.advance(signal);
    expect(order.due(letter)).to.have.property('superseded').that.includes('event 4');
  });

  it('are superseded by a later event of whatever else they concern', async () => {
    const log = await logOf([
      rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1, chain: 'a' } }),
      rowEvent(2, 'insert', { key: { id: 2 }, after: { id: 2, chain: 'b' } }),
      rowEvent(3, 'insert', { key: { id: 3 }, after: { id: 3, chain: 'a' } }),
    ]);
    const concerns = ({ data }: LogEvent): string[] => [
      (JSON.parse(Buffer.from(data).toString()) as { after: { chain: string } }).after.chain,
    ];
    const order = new RedriveOrder(log, { concerns });
    const letters = [(await log.get(1))!, (await log.get(2))!];
    for (const letter of letters) order.add(letter);
    await order.advance(signal);
    expect(letters.map((letter) => Object.keys(order.due(letter))[0])).to.deep.equal(['superseded', 'apply']);
  });

  it('cannot be judged when part of what came after is no longer held', async () => {
    const log = await logOf([1, 2, 3, 4].map((id) => rowEvent(id, 'insert', { key: { id }, after: { id } })));
    const letters = [(await log.get(1))!, (await log.get(3))!];
    log.trim(4);
    const order = new RedriveOrder(log, {});
    for (const letter of letters) order.add(letter);
    await order.advance(signal);
    expect(letters.map((letter) => Object.keys(order.due(letter))[0])).to.deep.equal(['unknown', 'apply']);
  });

  it('count by themselves where there is no row, or no key', async () => {
    const message = { subject: 'ev._message.orders', data: Buffer.from('{"v":1,"type":"message"}') };
    const keyless = rowEvent(2, 'insert', { after: { id: 1 } });
    const log = await logOf([message, keyless, message, keyless]);
    const order = new RedriveOrder(log, {});
    const letters = [(await log.get(1))!, (await log.get(2))!];
    for (const letter of letters) order.add(letter);
    await order.advance(signal);
    expect(letters.map((letter) => order.due(letter))).to.deep.equal(letters.map((apply) => ({ apply })));
  });
});
