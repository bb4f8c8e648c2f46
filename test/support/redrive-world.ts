import { connectNats, jetstreamManager, type NatsConnection } from '../../pipeline/clients/nats.ts';
import type { LogEvent, ReadOptions, Seq } from '../../pipeline/log/event-log.ts';
import type { DeadLetters, RedriveResult } from '../../pipeline/runner/dead-letters.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import { DeadLetterDesk, type WantedLetter } from '../../pipeline/runner/redrive/desk.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { FaultyLog } from './faulty-log.ts';
import { until } from './role-context.ts';
import { freshStreamName, testServers } from './servers.ts';

/** A log some of whose events are read as nonsense, as by a program with a bug. */
export class GarblingLog extends FaultyLog {
  readonly garbled = new Set<Seq>();

  override async *read(from: Seq, options: ReadOptions = {}): AsyncGenerator<readonly LogEvent[], void, undefined> {
    for await (const events of super.read(from, options))
      yield events.map((event) => (this.garbled.has(event.seq) ? { ...event, data: Buffer.from('nonsense') } : event));
  }
}

export interface RedriveWorld {
  readonly log: GarblingLog;
  /** Letters hold the events as they are. */
  readonly deadLetters: DeadLetters;
  /** Waits until each of the processors has a letter of each garbled event; then none is garbled any more. */
  buried(...processors: readonly string[]): Promise<void>;
  /** Redrives all letters of a processor; `tick` appends a tick to the log. `<seq> <outcome>`. */
  redrive(processor: string, tick: () => void): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** A log with a bug, and dead letters of a test's own. */
export async function redriveWorld(): Promise<RedriveWorld> {
  const connection: NatsConnection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
  const name = freshStreamName();
  const settings = { stream: name, subject: name };
  const letters = await JetStreamDeadLetters.open(connection, settings);
  const desk = await DeadLetterDesk.open(connection, settings);
  const log = new GarblingLog();
  const listed = async (processor: string): Promise<WantedLetter[]> => {
    const found: WantedLetter[] = [];
    for await (const { place, event } of desk.list(processor, AbortSignal.timeout(20_000)))
      found.push({ place, bytes: event?.length ?? 0 });
    return found;
  };
  return {
    log,
    deadLetters: {
      redrives: letters.redrives,
      publish: async (letter) => letters.publish({ ...letter, event: (await log.get(letter.seq))!.data }),
    },
    async buried(...processors) {
      for (const processor of processors)
        await until(
          async () => (await listed(processor)).length >= log.garbled.size,
          15_000,
          `${log.garbled.size} letters of ${processor}`,
        );
      log.garbled.clear();
    },
    async redrive(processor, tick) {
      const requests = await desk.request(processor, await listed(processor));
      const results: Omit<RedriveResult, 'letter'>[] = [];
      const timer = setInterval(tick, 100);
      try {
        for await (const record of desk.results(requests, AbortSignal.timeout(20_000))) results.push(...record.results);
      } finally {
        clearInterval(timer);
      }
      return results.map(({ seq, outcome }) => `${seq} ${outcome}`).sort();
    },
    async close() {
      await (await jetstreamManager(connection)).streams.delete(name);
      await connection.close();
    },
  };
}
