import type { LogEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { tableToken } from '../../schemas/subjects.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withNats } from '../connections.ts';
import { eventLine } from '../event-line.ts';
import { count } from '../progress-text.ts';

interface TailOptions {
  readonly from?: number;
  readonly count?: number;
  readonly ticks?: boolean;
  readonly json?: boolean;
  readonly data?: string;
}

/** Follows the log, until the signal or the number of events that was asked for. */
export async function tail(cli: Cli, name: string | undefined, options: TailOptions): Promise<void> {
  const config = await locate(configOf(cli, { data: options.data }), 'natsUrl');
  const log = silentLogger();
  await withNats(config, log, async (connection) => {
    const events = await JetStreamLog.open(connection, config, log);
    try {
      const { last } = await events.bounds();
      const from = options.from ?? last + 1;
      if (from > last + 1) await cli.err.line(`The log ends at ${count(last)}: waiting for ${count(from)}.`);
      const subjects = name === undefined ? {} : { subjects: [`${config.subject}.${tokenOf(name)}.*`] };
      let left = options.count ?? Infinity;
      for await (const batch of events.read(Math.min(from, last + 1), { ...subjects, signal: cli.signal })) {
        const shown = batch
          .filter(({ seq, subject }) => seq >= from && (options.json || options.ticks || !subject.endsWith('._tick')))
          .slice(0, left);
        await cli.out.write(shown.map((event) => `${options.json ? jsonLine(event) : eventLine(event, cli.out)}\n`).join(''));
        left -= shown.length;
        if (left <= 0 || cli.signal.aborted) return;
      }
    } finally {
      events.close();
    }
  });
}

/** The subject's tokens for a table; the schema ends at the first dot. */
function tokenOf(name: string): string {
  const dot = name.indexOf('.');
  return dot < 0 ? tableToken('public', name) : tableToken(name.slice(0, dot), name.slice(dot + 1));
}

/** The event's bytes are spliced in as they are. */
function jsonLine({ seq, data }: LogEvent): string {
  return `{"seq":${seq},"event":${Buffer.from(data).toString('utf8')}}`;
}
