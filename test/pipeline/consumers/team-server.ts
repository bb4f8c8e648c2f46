import { relative } from 'node:path';
import { connectNats, type NatsConnection } from '../../../pipeline/clients/nats.ts';
import { JetStreamLog } from '../../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { startLocalServices } from '../../../deploy/local/services.ts';
import { writeRunFile } from '../../../cli/run-file.ts';
import { runCli } from '../../cli/support/run-cli.ts';
import { projectRoot } from '../../project-root.ts';
import { removeData, temporaryDirectory } from '../../support/servers.ts';
import { rowEvent } from '../../support/row-events.ts';

/** What a team's program is given. */
export interface TeamEnvironment extends Readonly<Record<string, string>> {
  readonly NATS_URL: string;
  readonly NATS_STREAM: string;
  readonly NATS_CONSUMER: string;
  readonly NATS_INBOX_PREFIX: string;
}

/**
 * A NATS server of a test's own, with a log of the default names, which nats.conf and teams.conf know, and a run.json as `up`
 * writes it: what teams may do depends on all of that.
 */
export interface TeamServer {
  readonly data: string;
  readonly operatorUrl: string;
  readonly operator: NatsConnection;
  readonly log: JetStreamLog;
  /** Appends so many inserts of a table; n rises from event to event. Returns the last sequence. */
  append(count: number, table?: string): Promise<number>;
  /** `headwater consumers add`, and what it printed. */
  add(name: string, ...args: string[]): Promise<TeamEnvironment>;
  stop(): Promise<void>;
}

export async function startTeamServer(): Promise<TeamServer> {
  const logger = silentLogger();
  const data = temporaryDirectory();
  const services = await startLocalServices({ data, need: { postgres: false, nats: true, redis: false }, install: true, log: logger });
  const operatorUrl = services.nats!.operator;
  await writeRunFile(data, { gateway: 'http://127.0.0.1:1', databaseUrl: '', natsUrl: operatorUrl, redisUrl: '', key: 'hw_x' });
  const operator = await connectNats(operatorUrl, 'test', logger);
  const settings = { stream: 'EVENTS', subject: 'ev', replicas: 1, maxAgeMs: undefined, maxBytes: undefined };
  const log = await JetStreamLog.create(operator, settings, logger);
  return {
    data,
    operatorUrl,
    operator,
    log,
    async append(count, table = 'prices') {
      const { last } = await log.bounds();
      const events = Array.from({ length: count }, (_, i) => {
        const n = last + 1 + i;
        return rowEvent(n, 'insert', { table, key: { id: n }, after: { id: n, price: `${n}.50` } });
      });
      return log.append(events, last);
    },
    async add(name, ...args) {
      const { code, stdout, stderr } = await runCli(['consumers', 'add', name, ...args, '--data', relative(projectRoot(), data)]);
      if (code !== 0) throw new Error(stderr);
      const pairs = stdout.split('\n').flatMap((line): [string, string][] => (line ? [line.split(/=(.*)/s, 2) as [string, string]] : []));
      return Object.fromEntries(pairs) as TeamEnvironment;
    },
    async stop() {
      log.close();
      await operator.close();
      await services.stop();
      await removeData(data);
    },
  };
}
