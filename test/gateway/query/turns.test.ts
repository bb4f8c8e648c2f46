import { expect } from 'chai';
import fc from 'fast-check';
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { QueryRefused } from '../../../gateway/query/refused.ts';
import { Turns } from '../../../gateway/query/turns.ts';
import { startQueryRest } from './support/query-rest.ts';

describe('queries: turns', () => {
  const { signal } = new AbortController();
  setMaxListeners(0, signal);

  it('a key alone has all places; while others wait none gets more than its part, and no place stays empty', async () => {
    const asks = fc.array(fc.record({ key: fc.constantFrom('a', 'b', 'c'), end: fc.boolean(), which: fc.nat(100) }), { maxLength: 80 });
    await fc.assert(
      fc.asyncProperty(asks, fc.integer({ min: 1, max: 6 }), async (history, places) => {
        const turns = new Turns(places, 60_000);
        const running: { key: string; done: () => void }[] = [];
        const waiting: string[] = [];
        const count = (of: readonly string[], key: string): number => of.filter((each) => each === key).length;
        const settled = async (): Promise<void> => {
          for (let n = 0; n < 5; n++) await Promise.resolve();
        };
        for (const { key, end, which } of history) {
          const before = running.map((each) => each.key);
          if (end && running.length > 0) {
            const [ended] = running.splice(which % running.length, 1);
            ended!.done();
          } else {
            waiting.push(key);
            void turns.take(key, signal).then((done) => {
              waiting.splice(waiting.indexOf(key), 1);
              running.push({ key, done });
            });
          }
          await settled();
          const now = running.map((each) => each.key);
          if (waiting.length > 0) expect(now.length).to.equal(places);
          expect(now.length).to.be.at.most(places);
          for (const each of ['a', 'b', 'c']) {
            if (count(now, each) <= count(before, each)) continue;
            // Who has begun had no more than whoever still waits.
            for (const other of new Set(waiting)) expect(count(now, each) - 1).to.be.at.most(count(now, other));
          }
        }
        for (let each = running.pop(); each; each = running.pop()) {
          each.done();
          await settled();
        }
        expect(waiting).to.deep.equal([]);
      }),
      { numRuns: 300 },
    );
  });

  it('who leaves, or has waited for too long, waits no more and takes no place', async () => {
    const turns = new Turns(1, 50);
    const done = await turns.take('a', signal);
    const leaving = new AbortController();
    const left = turns.take('b', leaving.signal).catch((error: unknown) => error);
    leaving.abort(new Error('left'));
    expect(await left).to.have.property('message', 'left');
    const late = await turns.take('b', signal).catch((error: unknown) => error);
    expect(late).to.be.instanceOf(QueryRefused).and.include({ code: 'unavailable', retryAfterS: 1 });
    done();
    (await turns.take('c', signal))();
  });
});

describe('queries, many of one key', function () {
  this.timeout(60_000);

  it('keep those of another waiting no longer than until one of them ends', async () => {
    const rest = await startQueryRest({
      seed: `CREATE FUNCTION public.slowly(id int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.4); RETURN true; END $$;
        CREATE TABLE public.slow (id int PRIMARY KEY); INSERT INTO public.slow VALUES (1);
        ALTER TABLE public.slow ENABLE ROW LEVEL SECURITY;
        CREATE POLICY slow ON public.slow USING (public.slowly(id))`,
    });
    try {
      await rest.post({ from: 'slow' });
      let ended = 0;
      // Of 8 at once.
      const many = Array.from({ length: 40 }, async () => {
        const { status } = await rest.post({ from: 'slow' }, 'high');
        ended++;
        return status;
      });
      await sleep(200);
      const others = await Promise.all(Array.from({ length: 4 }, () => rest.post({ from: 'slow' }, 'bob')));
      expect(others.map(({ status }) => status)).to.deep.equal([200, 200, 200, 200]);
      expect(ended, 'before the other key’s have').to.be.at.most(16);
      expect(new Set(await Promise.all(many))).to.deep.equal(new Set([200]));
    } finally {
      await rest.close();
    }
  });
});
