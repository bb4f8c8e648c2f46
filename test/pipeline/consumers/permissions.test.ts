import { expect } from 'chai';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { jetstreamManager } from '@nats-io/jetstream';
import { openBucket } from '../../../pipeline/clients/nats.ts';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import { runCli } from '../../cli/support/run-cli.ts';
import { startTeamServer, type TeamEnvironment, type TeamServer } from './team-server.ts';

/** What a team may do, as a client of its own sees it. */
describe('a team on the NATS server', function () {
  this.timeout(60_000);
  let server: TeamServer;
  let mine: TeamEnvironment;
  let other: TeamEnvironment;
  const connections: NatsConnection[] = [];

  async function as({ NATS_URL, NATS_INBOX_PREFIX }: TeamEnvironment): Promise<NatsConnection> {
    const { host, username: user, password: pass } = new URL(NATS_URL);
    const connection = await connect({ servers: host, user, pass, inboxPrefix: NATS_INBOX_PREFIX });
    connections.push(connection);
    return connection;
  }
  const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

  before(async () => {
    server = await startTeamServer();
    await (await openBucket(server.operator, 'HEADWATER', 1)).put('epoch', 'x');
    await server.append(5);
    mine = await server.add('mine', '--tables', 'prices');
    other = await server.add('other');
  });
  afterEach(() => Promise.all(connections.splice(0).map((connection) => connection.close())));
  after(() => server.stop());

  it('reads its own consumer: where it is, what comes next, acknowledging, and beginning at a sequence', async () => {
    const manager = await jetstreamManager(await as(mine), { checkAPI: false });
    const consumer = await manager.jetstream().consumers.get('EVENTS', 'mine');
    const seen: string[] = [];
    for await (const message of await consumer.fetch({ max_messages: 5, expires: 2_000 })) {
      seen.push(`${message.seq} ${message.subject}`);
      expect(await message.ackAck()).to.equal(true);
    }
    expect(seen).to.deep.equal([1, 2, 3, 4, 5].map((seq) => `${seq} ev.public.prices.insert`));
    expect((await manager.consumers.info('EVENTS', 'mine')).ack_floor.stream_seq).to.equal(5);
    expect((await manager.consumers.reset('EVENTS', 'mine', 4)).reset_seq).to.equal(4);
    expect((await consumer.next({ expires: 2_000 }))?.seq).to.equal(4);
  });

  it('may publish nothing else: not to the log, other consumers, streams, direct gets, buckets', async () => {
    const refused: string[] = [];
    const subjects = [
      'ev.public.prices.insert',
      '$KV.HEADWATER.epoch',
      'dl.cache',
      '$JS.API.INFO',
      ...[
        `$JS.API.STREAM.NAMES`,
        `$JS.API.STREAM.INFO.EVENTS`,
        `$JS.API.STREAM.DELETE.EVENTS`,
        `$JS.API.STREAM.PURGE.EVENTS`,
        `$JS.API.STREAM.UPDATE.EVENTS`,
        `$JS.API.STREAM.MSG.GET.EVENTS`,
        `$JS.API.STREAM.MSG.DELETE.EVENTS`,
        `$JS.API.DIRECT.GET.EVENTS`,
        `$JS.API.DIRECT.GET.KV_HEADWATER.$KV.HEADWATER.epoch`,
        `$JS.API.CONSUMER.CREATE.EVENTS`,
        `$JS.API.CONSUMER.CREATE.EVENTS.mine.ev.>`,
        `$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.mine`,
        `$JS.API.CONSUMER.LIST.EVENTS`,
        `$JS.API.CONSUMER.DELETE.EVENTS.mine`,
        `$JS.API.CONSUMER.PAUSE.EVENTS.mine`,
        `$JS.API.CONSUMER.INFO.EVENTS.other`,
        `$JS.API.CONSUMER.RESET.EVENTS.other`,
        `$JS.API.CONSUMER.MSG.NEXT.EVENTS.other`,
      ],
      '$JS.ACK.EVENTS.other.1.1.1.1.1',
      '$SYS.REQ.SERVER.PING',
      '_INBOX_other.x',
      '_INBOX_gateway.x',
      '_R_.x',
    ];
    const connection = await as(mine);
    void (async () => {
      for await (const status of connection.status()) if (status.type === 'error') refused.push(messageOf(status.error));
    })();
    for (const subject of subjects) connection.publish(subject, 'x');
    await connection.flush();
    await pause(100);
    const named = refused.map((message) => /Publish to "(.*)"/i.exec(message)?.[1] ?? message);
    expect(named).to.have.members(subjects);
    expect((await server.log.bounds()).last).to.equal(5);
  });

  it('cannot listen to anything but its own inbox', async () => {
    for (const subject of ['_INBOX.>', '_INBOX_other.>', '_INBOX_gateway.>', '_INBOX_*.>', 'ev.>', '$KV.>', '$JS.>', '$SYS.>', '>']) {
      const connection = await as(mine);
      const error = await new Promise<Error | null | undefined>((resolve) => {
        connection.subscribe(subject, { callback: (fault) => resolve(fault) });
        setTimeout(resolve, 500, undefined);
      });
      expect(messageOf(error), subject).to.match(/permissions violation/i);
    }
  });

  it('cannot have the server send answers to the log, to streams’ requests or to the roles’ inboxes', async () => {
    const connection = await as(mine);
    const heard: string[] = [];
    const replies = [
      'ev.public.prices.insert',
      '_INBOX_gateway.x',
      '$KV.HEADWATER.epoch',
      'dl.cache',
      '$JS.API.STREAM.PURGE.EVENTS',
      'anything',
    ];
    // One each: a message that comes on the way of answers has the subject of its event here.
    const listening = replies.map((reply) => server.operator.subscribe(reply, { callback: () => void heard.push(reply) }));
    await server.operator.flush();
    for (const reply of replies) {
      connection.publish('$JS.API.CONSUMER.MSG.NEXT.EVENTS.mine', '1', { reply });
      connection.publish('$JS.API.CONSUMER.INFO.EVENTS.mine', '', { reply });
      connection.publish('$JS.API.CONSUMER.RESET.EVENTS.mine', '', { reply });
      connection.publish('$JS.API.CONSUMER.MSG.NEXT.EVENTS.mine', '{"expires":50000000}', { reply });
      connection.publish('$JS.ACK.EVENTS.mine.1.1.1.1.1', '+NXT', { reply });
    }
    await connection.flush();
    await pause(300);
    for (const each of listening) each.unsubscribe();
    expect(heard).to.deep.equal([]);
    expect((await server.log.bounds()).last).to.equal(5);
  });

  it('is shut out once it has been removed, while others go on', async () => {
    const gone = await server.add('gone');
    await (await as(gone)).flush();
    expect((await runCli(['consumers', 'remove', 'gone', '--yes', '--data', server.data])).code).to.equal(0);
    let error: unknown;
    for (let i = 0; i < 50 && error === undefined; i++) {
      await pause(20);
      error = await as(gone).then(
        () => undefined,
        (fault: unknown) => fault,
      );
    }
    expect(messageOf(error)).to.match(/authorization violation/i);
    const manager = await jetstreamManager(await as(other), { checkAPI: false });
    expect((await (await manager.jetstream().consumers.get('EVENTS', 'other')).next({ expires: 2_000 }))?.seq).to.equal(1);
  });
});
