import { expect } from 'chai';
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import type { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { ReplicationStream, type MessageHandler } from '../../../pipeline/source/replication-stream.ts';
import { until } from '../../support/role-context.ts';
import { bytes, int32 } from './support/pgoutput-bytes.ts';
import { errorResponse, keepAlive, replicationServer, walData, type ReplicationServer } from './support/replication-server.ts';

const start = 0x1_00000010n;

function open(server: ReplicationServer, handle: MessageHandler): Promise<ReplicationStream> {
  return ReplicationStream.open(
    { url: server.url, slot: 'a slot', publications: ['p "1"', 'p2'], start, applicationName: 'test', log: silentLogger() },
    handle,
  );
}

describe('replication stream', () => {
  let server: ReplicationServer;
  let stream: ReplicationStream | undefined;

  const servers: ReplicationServer[] = [];
  const newServer = async (answer?: Buffer): Promise<ReplicationServer> => {
    const created = await replicationServer(answer);
    servers.push(created);
    return created;
  };

  beforeEach(async () => {
    server = await newServer();
  });
  afterEach(async () => {
    stream?.close();
    stream = undefined;
    for (const each of servers.splice(0)) await each.close();
  });

  it('asks for its slot, position and publications, with their names quoted', async () => {
    stream = await open(server, () => undefined);
    expect(await server.started).to.equal(
      `START_REPLICATION SLOT "a slot" LOGICAL 1/10 (proto_version '1', publication_names '"p ""1""","p2"', messages 'true')`,
    );
  });

  it('hands on each message whole, in order and one at a time, wherever the wire cuts them', async function () {
    this.timeout(60_000);
    const sizes = fc.oneof(
      { weight: 8, arbitrary: fc.nat(60) },
      { weight: 2, arbitrary: fc.nat(3_000) },
      { weight: 1, arbitrary: fc.integer({ min: 60_000, max: 200_000 }) },
    );
    const messages = fc.array(fc.record({ size: sizes, waits: fc.boolean(), keepAlive: fc.boolean() }), { minLength: 1, maxLength: 40 });
    const pieces = fc.array(fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 5_000 }), fc.constant(100_000)), {
      minLength: 1,
      maxLength: 30,
    });
    await fc.assert(
      fc.asyncProperty(messages, pieces, async (sent, cuts) => {
        const own = await newServer();
        const received: string[] = [];
        let busy = false;
        // Each payload tells its own length, number and content.
        const payload = (n: number): Buffer => bytes(int32(sent[n]!.size), int32(n), Buffer.alloc(sent[n]!.size, `${n},`));
        const handle: MessageHandler = (source, at) => {
          if (busy) received.push('came while another was handled');
          const n = source.readInt32BE(at + 4);
          const wanted = payload(n);
          received.push(source.subarray(at, at + wanted.length).equals(wanted) ? String(n) : `${n} damaged`);
          if (!sent[n]!.waits) return undefined;
          busy = true;
          return sleep(1).then(() => {
            busy = false;
          });
        };
        const reader = await open(own, handle);
        const wire = bytes(...sent.flatMap((each, n) => [...(each.keepAlive ? [keepAlive(9n, true)] : []), walData(5n, payload(n))]));
        for (let at = 0, n = 0; at < wire.length; n++) {
          const size = cuts[n % cuts.length]!;
          // Far-apart writes only for a part of them, so that it stays quick.
          await own.send(wire.subarray(at, at + (n > 200 ? wire.length : size)));
          if (n % 7 === 0 && n < 100) await sleep(1);
          at += n > 200 ? wire.length : size;
        }
        await until(() => received.length >= sent.length, 5_000, 'all messages');
        reader.close();
        expect(received).to.deep.equal(sent.map((_, n) => String(n)));
      }),
      { numRuns: 25 },
    );
  });

  it('answers keep-alives that ask, with what is confirmed and never with the server\u2019s own position', async () => {
    stream = await open(server, () => undefined);
    await server.send(keepAlive(0xffn << 32n, false));
    await server.send(bytes(keepAlive(0xffn << 32n, true), walData(0xfffn << 32n, Buffer.from('x'))));
    await until(() => server.statuses.length === 1);
    stream.confirm(start + 5n);
    await until(() => server.statuses.length === 2);
    stream.confirm(start + 2n);
    await server.send(keepAlive(0xffffn << 32n, true));
    await until(() => server.statuses.length === 3);
    expect(server.statuses).to.deep.equal([start, start + 5n, start + 5n]);
    expect(stream.serverEnd).to.equal(0xffffn << 32n);
  });

  it('hands nothing on while it is paused, but for what it has read already', async () => {
    let received = 0;
    stream = await open(server, () => {
      received++;
      return undefined;
    });
    stream.pause();
    const payload = Buffer.alloc(10_000);
    const sending = (async (): Promise<void> => {
      for (let i = 0; i < 2_000; i++) await server.send(walData(5n, payload));
    })();
    await sleep(200);
    expect(received).to.be.below(50);
    stream.resume();
    await sending;
    await until(() => received === 2_000, 10_000, 'the rest');
  });

  it('ends with the error of a handler, whether thrown or late', async () => {
    for (const fail of [
      (): undefined => {
        throw new Error('bad message');
      },
      (): Promise<void> =>
        sleep(5).then(() => {
          throw new Error('bad message');
        }),
    ]) {
      const own = await newServer();
      const reader = await open(own, fail);
      await own.send(bytes(walData(5n, Buffer.from('x')), walData(5n, Buffer.from('y'))));
      const error = await reader.ended.catch((thrown: unknown) => thrown);
      expect((error as Error).message).to.equal('bad message');
      reader.close();
    }
  });

  it('ends with an error when the server ends the connection, and without one when it is closed', async () => {
    stream = await open(server, () => undefined);
    server.disconnect();
    const error = await stream.ended.catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(Error);
    const own = await newServer();
    const reader = await open(own, () => undefined);
    reader.close();
    await reader.ended;
  });

  it('tries again while its slot is in use or the server is busy, and stops when the slot is gone', async () => {
    for (const [sqlState, code, reaction] of [
      ['55006', 'slot_active', 'retry'],
      ['53300', 'replication_failed', 'retry'],
      ['42704', 'replication_refused', 'refused'],
    ] as const) {
      const own = await newServer(errorResponse(sqlState, 'no such luck'));
      const error = (await open(own, () => undefined).catch((thrown: unknown) => thrown)) as HeadwaterError;
      expect([error.code, error.reaction, error.message]).to.deep.equal([code, reaction, 'PostgreSQL: no such luck']);
    }
  });
});
