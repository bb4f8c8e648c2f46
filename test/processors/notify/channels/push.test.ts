import { expect } from 'chai';
import { decrypt } from 'http_ece';
import { createECDH, createPublicKey, randomBytes, verify } from 'node:crypto';
import type { Attempt, Channel, Notice, Target } from '../../../../processors/notify/channel.ts';
import { encryptPush, judgePushKeys, maxPushText } from '../../../../processors/notify/channels/push/encrypt.ts';
import { pushChannel } from '../../../../processors/notify/channels/push/push.ts';
import { readVapid } from '../../../../processors/notify/channels/push/vapid.ts';
import type { PushBody } from '../../../../processors/notify/channels/templates/push.ts';
import { alert, digest, firing, resolved } from './support/notices.ts';
import { answers, startReceiver, type Received, type Receiver } from '../support/receiver.ts';

/** A browser: its subscription's keys, and what it makes of a message. */
function browser(): { p256dh: string; auth: string; read(received: Received): PushBody; plain(body: Buffer): Buffer } {
  const privateKey = createECDH('prime256v1');
  const p256dh = privateKey.generateKeys('base64url');
  const auth = randomBytes(16).toString('base64url');
  const plain = (body: Buffer): Buffer => decrypt(body, { version: 'aes128gcm', privateKey, authSecret: auth });
  return { p256dh, auth, plain, read: ({ body }) => JSON.parse(plain(body).toString()) as PushBody };
}

function vapidPair(): { publicKey: string; privateKey: string } {
  const pair = createECDH('prime256v1');
  return { publicKey: pair.generateKeys('base64url'), privateKey: pair.getPrivateKey().toString('base64url').padStart(43, 'A') };
}

describe('encryption for push', () => {
  it('is that of the example in RFC 8291', () => {
    const keys = {
      p256dh: 'BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4',
      auth: 'BTBZMqHH6r4Tts7J_aSIgg',
    };
    const own = {
      privateKey: Buffer.from('yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw', 'base64url'),
      salt: Buffer.from('DGv6ra1nlYgDCS1FRnbzlw', 'base64url'),
    };
    expect(encryptPush(Buffer.from('When I grow up, I want to be a watermelon'), keys, own).toString('base64url')).to.equal(
      'DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN',
    );
  });

  it('can be undone by the device alone, and differs each time', () => {
    const device = browser();
    for (const text of [Buffer.of(), Buffer.from('é😀'), randomBytes(maxPushText)]) {
      const [first, second] = [encryptPush(text, device), encryptPush(text, device)];
      expect(device.plain(first).equals(text)).to.equal(true);
      expect(device.plain(second).equals(text)).to.equal(true);
      expect(first.equals(second)).to.equal(false);
      expect(first.length).to.be.at.most(4_096);
      expect(() => browser().plain(first)).to.throw();
    }
  });

  it('wants keys that are some', () => {
    const { p256dh, auth } = browser();
    expect(judgePushKeys({ p256dh, auth })).to.equal(undefined);
    expect(judgePushKeys({ p256dh: `${p256dh}=`, auth: `${auth}==` })).to.equal(undefined);
    const offCurve = Buffer.from(p256dh, 'base64url');
    offCurve[64]! ^= 1;
    for (const bad of [
      '',
      'x',
      auth,
      offCurve.toString('base64url'),
      p256dh.replace(/^B/, 'A'),
      Buffer.alloc(65, 4).toString('base64url'),
      `${p256dh}\n`,
    ])
      expect(judgePushKeys({ p256dh: bad, auth })?.field, bad).to.equal('p256dh');
    for (const bad of ['', p256dh, auth.slice(2), `${auth}AA`]) expect(judgePushKeys({ p256dh, auth: bad })?.field, bad).to.equal('auth');
  });
});

describe('push notifications', () => {
  const pair = vapidPair();
  const vapid = readVapid(pair.publicKey, pair.privateKey, 'mailto:ops@example.com')!;
  const wording = { locale: 'en', link: 'https://console.example.com/{alert}' };
  let receiver: Receiver;
  let channel: Channel;
  let device: ReturnType<typeof browser>;

  beforeEach(async () => {
    receiver = await startReceiver();
    receiver.answer = answers(201);
    device = browser();
    channel = pushChannel({ vapid, rules: { allowPrivate: true }, wording, userAgent: 'Headwater/9.9.9', timeoutMs: 500 });
  });
  afterEach(async () => {
    await channel.close();
    await receiver.close();
  });

  function deliver(notice: Notice = firing(), changes: Partial<Extract<Target, { channel: 'push' }>> = {}): Promise<Attempt> {
    const endpoint = `http://127.0.0.1:${receiver.port}/push/abcdefghijklmnopqrstuvwxyz`;
    const target: Target = { channel: 'push', deviceId: 'd1', endpoint, p256dh: device.p256dh, auth: device.auth, ...changes };
    return channel.deliver(notice, target, new AbortController().signal);
  }

  it('reach the device in words for showNotification', async () => {
    expect(await deliver()).to.deep.equal({ outcome: 'delivered', status: 201, answer: '' });
    expect(device.read(receiver.received[0]!)).to.deep.equal({
      title: 'Ether is dear',
      body: 'price is 1,234,567.10, above 1,000,000\ntoken_id weth, chain Base',
      tag: receiver.received[0]!.headers['topic'],
      silent: false,
      timestamp: Date.parse(alert.firedAt),
      data: { id: 'ntf_2b1f', type: 'alert.firing', kind: 'warning', url: `https://console.example.com/${alert.id}` },
    });
    expect(receiver.received[0]!.headers).to.include({
      'content-encoding': 'aes128gcm',
      'content-type': 'application/octet-stream',
      ttl: '86400',
      'user-agent': 'Headwater/9.9.9',
    });
  });

  it('are signed for the push service’s origin, for less than a day, with the key that browsers subscribe for', async () => {
    await deliver();
    const [, token, key] = /^vapid t=([\w.-]+), k=([\w-]+)$/.exec(receiver.received[0]!.headers.authorization!)!;
    expect(key).to.equal(pair.publicKey);
    const [head, claims, signature] = token!.split('.') as [string, string, string];
    const json = (part: string): Record<string, unknown> =>
      JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>;
    expect(json(head)).to.deep.equal({ typ: 'JWT', alg: 'ES256' });
    const { exp, ...rest } = json(claims);
    expect(rest).to.deep.equal({ aud: `http://127.0.0.1:${receiver.port}`, sub: 'mailto:ops@example.com' });
    expect(Number(exp) - Date.now() / 1_000).to.be.within(3_600, 86_400);
    const point = Buffer.from(pair.publicKey, 'base64url');
    const [x, y] = [point.subarray(1, 33).toString('base64url'), point.subarray(33).toString('base64url')] as [string, string];
    const publicKey = createPublicKey({ key: { kty: 'EC', crv: 'P-256', x, y }, format: 'jwk' });
    expect(
      verify(
        'sha256',
        Buffer.from(`${head}.${claims}`),
        { key: publicKey, dsaEncoding: 'ieee-p1363' },
        Buffer.from(signature, 'base64url'),
      ),
    ).to.equal(true);
  });

  it('hurry as their severity says, and a resolved one quietly takes the place of the firing one', async () => {
    for (const severity of ['critical', 'warning', 'info'] as const) await deliver(firing({ alert: { severity } }));
    await deliver(resolved({ alert: { severity: 'critical' } }));
    await deliver(firing({ alert: { id: 'another' } }));
    const headers = receiver.received.map((each) => each.headers);
    expect(headers.map(({ urgency }) => urgency)).to.deep.equal(['high', 'normal', 'low', 'low', 'normal']);
    const topics = headers.map(({ topic }) => topic as string);
    expect(topics[0]).to.match(/^[\w-]{1,32}$/);
    expect(topics[3]).to.equal(topics[0]);
    expect(topics[4]).to.not.equal(topics[0]);
    const [first, , , over] = receiver.received.map(device.read);
    expect(over).to.include({ title: 'Resolved: Ether is dear', silent: true, tag: first!.tag });
  });

  it('tell of a digest by its counts', async () => {
    await deliver(digest(30));
    expect(device.read(receiver.received[0]!)).to.deep.include({
      title: 'Alerts: 20 firing, 10 resolved',
      body: 'Ether is dear: 7 firing, 3 resolved\nAnother rule: 7 firing, 3 resolved',
    });
  });

  it('fit, whatever the texts are', async () => {
    const long = '😀'.repeat(5_000);
    await deliver(firing({ rule: { name: long, condition: long }, alert: { entity: { [long]: long, b: long, c: long }, value: long } }));
    expect(receiver.received[0]!.body.length).to.be.at.most(4_096);
    expect(device.read(receiver.received[0]!).title).to.match(/^😀+…$/u);
  });

  it('are sent again, shorter, to a service that takes less', async () => {
    const limit = 1_200;
    receiver.answer = (response, received, socket) => answers(received.body.length > limit ? 413 : 201)(response, received, socket);
    const wide = '😀'.repeat(500);
    const long = firing({ alert: { entity: { a: wide, b: wide, c: wide, d: wide }, value: wide }, rule: { name: wide } });
    expect(await deliver(long)).to.include({ outcome: 'delivered', status: 201 });
    expect(receiver.received.map(({ body }) => body.length > limit)).to.deep.equal([true, false]);
    const [first, second] = receiver.received.map(device.read);
    expect(second!.title).to.equal(first!.title);
    expect(second!.body.length).to.be.lessThan(first!.body.length);
    receiver.answer = answers(413, 'too large');
    receiver.received.splice(0);
    expect(await deliver()).to.deep.equal({ outcome: 'failed', status: 413, answer: 'too large' });
    expect(receiver.received).to.have.length(2);
  });

  for (const [status, outcome] of [
    [200, 'delivered'],
    [201, 'delivered'],
    [202, 'delivered'],
    [404, 'gone'],
    [410, 'gone'],
    [400, 'retry'],
    [403, 'retry'],
    [429, 'retry'],
    [500, 'retry'],
    [307, 'retry'],
  ] as const)
    it(`take ${status} for ${outcome}`, async () => {
      receiver.answer = answers(status);
      expect(await deliver()).to.include({ outcome, status });
    });

  it('heed Retry-After', async () => {
    receiver.answer = answers(429, '', { 'retry-after': '30' });
    expect(await deliver()).to.include({ outcome: 'retry', retryAfterMs: 30_000 });
  });

  it('do not show the endpoint, which is a secret, in an answer', async () => {
    receiver.answer = (response, received, socket) => answers(400, `bad path ${received.path}`)(response, received, socket);
    expect((await deliver()).answer).to.equal('bad path /push/***');
  });

  it('go nowhere the guard forbids, and to no device without proper keys', async () => {
    expect(await deliver(firing(), { endpoint: 'http://169.254.169.254/push' })).to.deep.equal({
      outcome: 'failed',
      answer: 'the endpoint leads to 169.254.169.254, a cloud metadata address, which is not allowed',
    });
    expect((await deliver(firing(), { auth: 'short' })).answer).to.equal('the device’s auth must be 16 bytes in base64url');
    const strict = pushChannel({ vapid, rules: { allowPrivate: false }, wording, userAgent: 'x' });
    const target: Target = {
      channel: 'push',
      deviceId: 'd',
      endpoint: `http://127.0.0.1:${receiver.port}/`,
      p256dh: device.p256dh,
      auth: device.auth,
    };
    expect((await strict.deliver(firing(), target, new AbortController().signal)).outcome).to.equal('failed');
    await strict.close();
    expect(receiver.received).to.deep.equal([]);
  });

  it('are tried again when the service is silent or away', async () => {
    receiver.answer = () => undefined;
    expect(await deliver()).to.deep.equal({ outcome: 'retry', answer: 'not done within 0.5 s' });
    await receiver.close();
    expect(await deliver()).to.deep.equal({ outcome: 'retry', answer: 'connection refused' });
  });
});

describe('VAPID keys', () => {
  it('are the two of one pair', () => {
    const [one, other] = [vapidPair(), vapidPair()];
    expect(readVapid(one.publicKey, one.privateKey, undefined)?.publicKey).to.equal(one.publicKey);
    for (const [publicKey, privateKey] of [
      [one.publicKey, other.privateKey],
      ['', one.privateKey],
      [one.publicKey, ''],
      [one.publicKey, 'A'.repeat(43)],
      ['x', 'y'],
    ])
      expect(readVapid(publicKey!, privateKey!, undefined)).to.equal(undefined);
  });
});
