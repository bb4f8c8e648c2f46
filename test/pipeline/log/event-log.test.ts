import { connectNats } from '../../../pipeline/clients/nats.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { testServers } from '../../support/servers.ts';
import { eventLogConformance } from './event-log.conformance.ts';
import { freshLog } from './support/fresh-log.ts';

eventLogConformance('in memory', () => {
  const log = new MemoryLog();
  const trim = (first: number): Promise<void> => Promise.resolve(log.trim(first));
  return Promise.resolve({ log, subject: 'ev', keepsTimes: false, trim, close: () => Promise.resolve() });
});

eventLogConformance('JetStream', async () => {
  const { natsUrl } = await testServers();
  const connection = await connectNats(natsUrl, 'test', silentLogger());
  const { log, subject, trim, remove } = await freshLog(connection);
  const close = async (): Promise<void> => {
    log.close();
    await remove();
    await connection.close();
  };
  return { log, subject, keepsTimes: true, trim, close };
});
