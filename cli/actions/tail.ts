import type { LogEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { findTable, notHeldText } from '../../pipeline/log/log-tables.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { usage } from '../../pipeline/runtime/errors.ts';
import { tablesNamed, tableToken } from '../../schemas/subjects.ts';
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
  const given = configOf(cli, { data: options.data });
  if (name !== undefined && tablesNamed(name).length === 0)
    throw usage('bad_arguments', `'${name}' cannot be a table's name`, 'write <schema>.<table>, or a name in "public"');
  const config = await locate(given, 'natsUrl');
  const log = silentLogger();
  await withNats(config, log, async (connection) => {
    const events = await JetStreamLog.open(connection, config, log);
    try {
      const { last } = await events.bounds();
      const from = options.from ?? last + 1;
      if (from > last + 1) await cli.err.line(`The log ends at ${count(last)}: waiting for ${count(from)}.`);
      const subjects = name === undefined ? {} : { subjects: await subjectsOf(cli, events, config.subject, name) };
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

/** The subjects of a table's rows. One that the log holds nothing of may be made later, or be a typing error. */
async function subjectsOf(cli: Cli, log: JetStreamLog, subject: string, text: string): Promise<readonly string[]> {
  const { name, tables, held } = await findTable(log, subject, text);
  if (!held) await cli.err.line(await notHeldText(log, subject, name));
  return tables.map(({ schema, table }) => `${subject}.${tableToken(schema, table)}.*`);
}

/** The event's bytes are spliced in as they are. */
function jsonLine({ seq, data }: LogEvent): string {
  return `{"seq":${seq},"event":${Buffer.from(data).toString('utf8')}}`;
}
