import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { connectNats, jetstreamManager, openBucket, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { projectFile } from '../../deploy/local/paths.ts';
import { startLocalServices, type LocalServices } from '../../deploy/local/services.ts';
import type { NatsUser } from '../../deploy/local/secrets.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { removeData, temporaryDirectory } from '../support/servers.ts';

const log = silentLogger();

/** The default names of streams, which nats.conf knows: so these tests need a server of their own. */
describe('users of nats.conf', () => {
  let data: string;
  let services: LocalServices;
  const connections: NatsConnection[] = [];
  const as = async (user: NatsUser): Promise<NatsConnection> => {
    const connection = await connectNats(services.nats![user], `test ${user}`, log);
    connections.push(connection);
    return connection;
  };

  before(async () => {
    data = temporaryDirectory();
    services = await startLocalServices({ data, need: { postgres: false, nats: true, redis: false }, install: true, log });
    const capture = await as('capture');
    const manager = await jetstreamManager(capture);
    await manager.streams.add({ name: 'EVENTS', subjects: ['ev.>'], allow_atomic: true, allow_direct: true });
    await (await openBucket(capture, 'HEADWATER', 1)).put('epoch', 'x');
    for (let i = 0; i < 3; i++) await manager.jetstream().publish('ev.public.t.insert', `{"n":${i}}`);
  });
  afterEach(() => Promise.all(connections.splice(0).map((connection) => connection.close())));
  after(async () => {
    await services.stop();
    await removeData(data);
  });

  /** What the server says to a publish: the refusal, or undefined when it let it through. */
  async function refusal(connection: NatsConnection, subject: string): Promise<string | undefined> {
    const refused = (async () => {
      for await (const status of connection.status()) if (status.type === 'error') return messageOf(status.error);
      return undefined;
    })();
    connection.publish(subject, 'x');
    await connection.flush();
    return Promise.race([refused, new Promise<undefined>((resolve) => setTimeout(resolve, 50, undefined))]);
  }

  for (const user of ['capture', 'processor', 'gateway'] as const) {
    it(`${user} reads the log and its record: state, messages, ordered and pull consumers, keys`, async () => {
      const connection = await as(user);
      const manager = await jetstreamManager(connection);
      expect((await manager.streams.info('EVENTS')).state.messages).to.equal(3);
      expect((await manager.streams.getMessage('EVENTS', { seq: 2 }))?.seq).to.equal(2);
      expect((await manager.direct.getMessage('EVENTS', { last_by_subj: 'ev.public.t.insert' }))?.seq).to.equal(3);
      const ordered = await manager.jetstream().consumers.get('EVENTS');
      const seen: number[] = [];
      for await (const message of await ordered.fetch({ max_messages: 3, expires: 2_000 })) seen.push(message.seq);
      expect(seen).to.deep.equal([1, 2, 3]);
      await manager.consumers.add('EVENTS', { durable_name: `test-${user}`, ack_policy: 'explicit' });
      const message = await (await manager.jetstream().consumers.get('EVENTS', `test-${user}`)).next({ expires: 2_000 });
      expect(message && (await message.ackAck())).to.equal(true);
      await manager.consumers.delete('EVENTS', `test-${user}`);
      const bucket = await openBucket(connection, 'HEADWATER', 1).catch(() => undefined);
      if (user === 'capture') expect((await bucket?.get('epoch'))?.string()).to.equal('x');
    });
  }

  it('only capture publishes events and writes the record, only processor dead letters, and neither deletes', async () => {
    const allowed: string[] = [];
    const subjects = [
      'ev.public.t.insert',
      '$KV.HEADWATER.epoch',
      'dl.cache',
      '$JS.API.STREAM.DELETE.EVENTS',
      '$JS.API.STREAM.PURGE.EVENTS',
      '$JS.API.STREAM.CREATE.OTHER',
      'other',
    ];
    for (const user of ['capture', 'processor', 'gateway'] as const) {
      for (const subject of subjects) if ((await refusal(await as(user), subject)) === undefined) allowed.push(`${user} ${subject}`);
    }
    expect(allowed).to.deep.equal(['capture ev.public.t.insert', 'capture $KV.HEADWATER.epoch', 'processor dl.cache']);
  });

  it('a user cannot listen to another one’s answers, nor to the log around JetStream', async () => {
    for (const subject of ['_INBOX.>', '_INBOX_gateway.>', 'ev.>', 'dl.>', 'dl.cache', 'dl._redriven.>', '>']) {
      const connection = await as('processor');
      const error = await new Promise<Error | null | undefined>((resolve) => {
        connection.subscribe(subject, { callback: (fault) => resolve(fault) });
        setTimeout(resolve, 500, undefined);
      });
      expect(messageOf(error), subject).to.match(/permissions violation/i);
    }
  });

  it('a processor, and no other role, hears what is to be redriven', async () => {
    const operator = await as('operator');
    const heard = async (user: NatsUser): Promise<string> => {
      const connection = await as(user);
      const answer = new Promise<string>((resolve) => {
        connection.subscribe('dl._redrive.>', { callback: (error, message) => resolve(error ? 'refused' : message.subject) });
      });
      await connection.flush();
      operator.publish('dl._redrive.cache', '{}');
      return answer;
    };
    expect([await heard('processor'), await heard('gateway'), await heard('capture')]).to.deep.equal([
      'dl._redrive.cache',
      'refused',
      'refused',
    ]);
  });

  it('nobody gets in without a password', async () => {
    const url = new URL(services.nats!.operator);
    url.password = 'wrong';
    expect(messageOf(await connectNats(url.toString(), 'test', log).catch((error: unknown) => error))).to.contain(
      'refuses the user or password',
    );
  });

  it('fsyncs before it acknowledges', () => {
    expect(readFileSync(projectFile('nats.conf'), 'utf8')).to.match(/^ {2}sync_interval: always$/m);
  });
});
