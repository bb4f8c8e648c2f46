import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { connectNats, jetstreamManager, type JetStreamManager, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { decodeLetter, encodeLetter, type DeadLetter } from '../../pipeline/runner/dead-letters.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { testServers } from '../support/servers.ts';

const letter = (seq: number, event: Uint8Array = Buffer.from('{"v":1,"n":1.10}')): DeadLetter => ({
  processor: 'cache',
  seq,
  id: `${seq.toString(16).toUpperCase().padStart(16, '0')}.00000001`,
  code: 'bad_event',
  reason: 'it is "bad"',
  attempts: 3,
  at: '2026-11-22T12:00:00.000Z',
  event,
});

describe('dead letters', () => {
  it('hold the event as it is, as base64 when it is no JSON, and not at all when it has no room', () => {
    const head = {
      processor: 'cache',
      seq: 7,
      id: letter(7).id,
      code: 'bad_event',
      reason: 'it is "bad"',
      attempts: 3,
      at: '2026-11-22T12:00:00.000Z',
    };
    const text = (one: DeadLetter, max?: number): string => Buffer.from(encodeLetter(one, max)).toString();
    expect(text(letter(7))).to.include(',"event":{"v":1,"n":1.10}}');
    expect(JSON.parse(text(letter(7)))).to.deep.equal({ ...head, event: { v: 1, n: 1.1 } });
    const broken = Buffer.from([0x7b, 0xff, 0x00]);
    expect(JSON.parse(text(letter(7, broken)))).to.deep.equal({ ...head, event: broken.toString('base64'), encoding: 'base64' });
    for (const one of [letter(7), letter(7, broken), { ...letter(7), reason: 'says ,"event": itself', stack: 'at ,"event":1' }]) {
      const { event, ...rest } = decodeLetter(5, encodeLetter(one))!;
      expect(Buffer.from(event!).equals(Buffer.from(one.event))).to.equal(true);
      expect({ ...rest, event: one.event }).to.deep.equal({ ...one, place: 5 });
    }
    expect(decodeLetter(5, encodeLetter(letter(7), 10))).to.include({ seq: 7, event: undefined });
    expect(decodeLetter(5, Buffer.from('{"v":1}'))).to.equal(undefined);
    expect(JSON.parse(text(letter(7, Buffer.from(`"${'x'.repeat(500)}"`)), 400))).to.deep.equal({ ...head, event: null, omitted: true });
  });

  describe('on JetStream', () => {
    let connection: NatsConnection;
    let jsm: JetStreamManager;
    const settings = { stream: `DL${randomBytes(4).toString('hex')}`, subject: `dl${randomBytes(4).toString('hex')}` };
    before(async () => {
      connection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
      jsm = await jetstreamManager(connection);
    });
    after(async () => {
      await jsm.streams.delete(settings.stream).catch(() => undefined);
      await connection.close();
    });

    const count = async (): Promise<number> => (await jsm.streams.info(settings.stream)).state.messages;

    it('are stored once each, however often they are published and whoever publishes them', async () => {
      const one = await JetStreamDeadLetters.open(connection, settings);
      const two = await JetStreamDeadLetters.open(connection, settings);
      await Promise.all([one.publish(letter(1)), two.publish(letter(1)), one.publish(letter(2))]);
      await two.publish(letter(2));
      expect(await count()).to.equal(2);
      const stored = await jsm.streams.getMessage(settings.stream, { last_by_subj: `${settings.subject}.cache` });
      expect(stored?.json()).to.deep.include({ processor: 'cache', seq: 2, event: { v: 1, n: 1.1 } });
    });

    it('are stored again when the event fails after its letter was taken out', async () => {
      const letters = await JetStreamDeadLetters.open(connection, settings);
      const first = await jsm.streams.getMessage(settings.stream, { last_by_subj: `${settings.subject}.cache` });
      await jsm.streams.deleteMessage(settings.stream, first!.seq);
      const held = await count();
      await letters.publish(letter(2));
      await letters.publish(letter(2));
      expect(await count()).to.equal(held + 1);
    });

    it('of events as large as the server takes are stored without them', async () => {
      const letters = await JetStreamDeadLetters.open(connection, settings);
      await letters.publish(letter(3, Buffer.from(`"${'x'.repeat((connection.info?.max_payload ?? 0) - 10)}"`)));
      const stored = await jsm.streams.getMessage(settings.stream, { last_by_subj: `${settings.subject}.cache` });
      expect(stored?.json()).to.deep.include({ seq: 3, event: null, omitted: true });
    });
  });
});
