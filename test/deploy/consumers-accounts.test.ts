import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { startLocalServices, type LocalServices } from '../../deploy/local/services.ts';
import { connectNats, jetstreamManager } from '../../pipeline/clients/nats.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { removeData, temporaryDirectory } from '../support/servers.ts';

describe('streams of before there were accounts', function () {
  this.timeout(60_000);

  it('are those of the account of the log from then on', async () => {
    const [data, log] = [temporaryDirectory(), silentLogger()];
    const start = (): Promise<LocalServices> =>
      startLocalServices({ data, need: { postgres: false, nats: true, redis: false }, install: true, log });
    let services = await start();
    try {
      let connection = await connectNats(services.nats!.operator, 'test', log);
      const manager = await jetstreamManager(connection);
      await manager.streams.add({ name: 'EVENTS', subjects: ['ev.>'], metadata: { 'headwater.epoch': 'one' } });
      for (let n = 1; n <= 3; n++) await manager.jetstream().publish('ev.public.t.insert', `{"n":${n}}`);
      await connection.close();
      await services.stop();
      // What a server without accounts calls its only one.
      renameSync(join(data, 'nats', 'jetstream', 'HEADWATER'), join(data, 'nats', 'jetstream', '$G'));
      services = await start();
      connection = await connectNats(services.nats!.operator, 'test', log);
      const { config, state } = await (await jetstreamManager(connection)).streams.info('EVENTS');
      expect(config.metadata?.['headwater.epoch']).to.equal('one');
      expect([state.messages, state.last_seq]).to.deep.equal([3, 3]);
      await connection.close();
    } finally {
      await services.stop();
      await removeData(data);
    }
  });
});
