import { setTimeout as sleep } from 'node:timers/promises';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import type { PgClient } from '../../pipeline/clients/postgres.ts';
import { readConfig } from '../../pipeline/runtime/config.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import type { Scope } from './scope.ts';
import type { BenchServers } from './servers.ts';

interface Asked {
  readonly client: PgClient;
  readonly port: number;
  readonly key: string;
}

const everyMs = 50;
const day = 1_000;

/** The one query that is checked: a row of a token, named by its key as far as the other queries name theirs. */
const bodyOf = (token: number): string =>
  JSON.stringify({
    from: 'quotes',
    where: { field: 'token_id', op: 'eq', value: token },
    orderBy: [{ field: 'day', dir: 'desc' }],
    limit: 20,
  });

/**
 * Changes rows that are asked for often, waits until the log holds the change, and asks: from then on no answer may lack it.
 */
export class StaleCheck {
  stale = 0;
  checked = 0;
  readonly #asked: Asked;
  readonly #ending = new AbortController();
  /** Token → newest version that the log is known to hold. */
  readonly #logged = new Map<number, number>();
  #running: Promise<unknown> = Promise.resolve();

  private constructor(asked: Asked) {
    this.#asked = asked;
  }

  static async start({ connection }: BenchServers, asked: Asked, scope: Scope, signal: AbortSignal): Promise<StaleCheck> {
    const check = new StaleCheck(asked);
    const log = await JetStreamLog.open(connection, readConfig({}), silentLogger());
    scope.defer(() => log.close());
    const stop = AbortSignal.any([signal, check.#ending.signal]);
    const { last } = await log.bounds();
    check.#running = Promise.all([check.#follow(log, last + 1, stop), check.#check(stop)]);
    scope.defer(() => check.#ending.abort());
    return check;
  }

  async stop(): Promise<{ readonly stale: number; readonly checked: number }> {
    this.#ending.abort();
    await this.#running;
    return { stale: this.stale, checked: this.checked };
  }

  async #follow(log: JetStreamLog, from: number, signal: AbortSignal): Promise<void> {
    for await (const events of log.read(from, { subjects: ['ev.public.quotes.update'], signal })) {
      for (const { data } of events) {
        const { after } = JSON.parse(Buffer.from(data).toString('utf8')) as { after: { token_id: number; day: number; version: number } };
        if (after.day === day) this.#logged.set(after.token_id, after.version);
      }
    }
  }

  async #check(signal: AbortSignal): Promise<void> {
    const { client, port, key } = this.#asked;
    for (let n = 0; !signal.aborted; n++) {
      const token = 1 + (n % 20);
      const { rows } = await client.query<{ version: number }>(
        `UPDATE public.quotes SET version = version + 1 WHERE token_id = $1 AND day = ${day} RETURNING version`,
        [token],
      );
      while ((this.#logged.get(token) ?? 0) < rows[0]!.version && !signal.aborted) await sleep(1);
      if (signal.aborted) return;
      const answer = await fetch(`http://127.0.0.1:${port}/v2/query`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: bodyOf(token),
      });
      const { items } = (await answer.json()) as { items: { day: number; version: number }[] };
      this.checked++;
      if ((items.find((item) => item.day === day)?.version ?? 0) < rows[0]!.version) this.stale++;
      await sleep(everyMs, undefined, { signal }).catch(() => undefined);
    }
  }
}
