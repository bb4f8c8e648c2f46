import { expect } from 'chai';
import { Webhook } from 'standardwebhooks';
import type { Attempt, Channel, Target } from '../../../../processors/notify/channel.ts';
import { guardedAgents } from '../../../../processors/notify/channels/guard/connect.ts';
import { newSecret } from '../../../../processors/notify/channels/secret.ts';
import { webhookChannel } from '../../../../processors/notify/channels/webhook.ts';
import { digest, firing, resolved } from './support/notices.ts';
import { answers, startReceiver, type Receiver } from '../support/receiver.ts';

const rules = { allowPrivate: true };

describe('webhooks', () => {
  let receiver: Receiver;
  let channel: Channel;
  const secret = newSecret();
  const signal = new AbortController().signal;

  beforeEach(async () => {
    receiver = await startReceiver();
    channel = webhookChannel({ rules, userAgent: 'Headwater/9.9.9', timeoutMs: 500 });
  });
  afterEach(async () => {
    await channel.close();
    await receiver.close();
  });

  const target = (path = '/hook', secrets: readonly string[] = [secret]): Target => ({
    channel: 'webhook',
    url: `http://127.0.0.1:${receiver.port}${path}`,
    secrets,
  });
  const deliver = (to: Target = target(), notice = firing()): Promise<Attempt> => channel.deliver(notice, to, signal);

  it('carry the notice without its id, signed so that the library of Standard Webhooks accepts it', async () => {
    for (const notice of [firing(), resolved(), digest(30)]) {
      expect(await deliver(target(), notice)).to.deep.equal({ outcome: 'delivered', status: 200, answer: '' });
      const { headers, body } = receiver.received.at(-1)!;
      const { id, ...rest } = notice;
      expect(new Webhook(secret).verify(body.toString(), headers as Record<string, string>)).to.deep.equal(rest);
      expect(headers).to.include({
        'webhook-id': id,
        'content-type': 'application/json',
        'user-agent': 'Headwater/9.9.9',
        'content-length': String(body.length),
      });
      expect(Math.abs(Number(headers['webhook-timestamp']) - Date.now() / 1_000)).to.be.lessThan(5);
    }
  });

  it('have the same id and body at each attempt, and the time of the attempt', async () => {
    let now = 1_000_000;
    const timed = webhookChannel({ rules, userAgent: 'x', now: () => (now += 60_000) });
    receiver.answer = answers(500);
    await timed.deliver(firing(), target(), signal);
    await timed.deliver(firing(), target(), signal);
    await timed.close();
    const [first, second] = receiver.received;
    expect(second!.body.equals(first!.body)).to.equal(true);
    expect(second!.headers['webhook-id']).to.equal(first!.headers['webhook-id']);
    expect(second!.headers['webhook-timestamp']).to.not.equal(first!.headers['webhook-timestamp']);
  });

  for (const [status, outcome] of [
    [200, 'delivered'],
    [202, 'delivered'],
    [204, 'delivered'],
    [301, 'retry'],
    [400, 'retry'],
    [401, 'retry'],
    [404, 'retry'],
    [408, 'retry'],
    [410, 'gone'],
    [429, 'retry'],
    [500, 'retry'],
    [503, 'retry'],
  ] as const)
    it(`take ${status} for ${outcome}`, async () => {
      receiver.answer = answers(status, status === 204 ? '' : 'said so');
      expect(await deliver()).to.include({ outcome, status });
    });

  it('follow no redirects', async () => {
    const other = await startReceiver();
    for (const status of [301, 302, 303, 307, 308]) {
      receiver.answer = answers(status, '', { location: `http://127.0.0.1:${other.port}/` });
      const attempt = await deliver();
      expect(attempt.answer).to.equal('the receiver redirects, and redirects are not followed: give its final URL');
    }
    await other.close();
    expect(other.connections).to.equal(0);
  });

  it('heed Retry-After, in seconds or as a date, up to a day', async () => {
    const after = async (text: string, status = 503): Promise<number | undefined> => {
      receiver.answer = answers(status, '', { 'retry-after': text });
      return (await deliver()).retryAfterMs;
    };
    expect(await after('120')).to.equal(120_000);
    expect(await after('7', 429)).to.equal(7_000);
    expect(await after('0')).to.equal(0);
    expect(await after(new Date(Date.now() + 90_000).toUTCString())).to.be.within(80_000, 90_000);
    expect(await after('Sun, 06 Nov 1994 08:49:37 GMT')).to.equal(0);
    expect(await after('999999999')).to.equal(86_400_000);
    for (const text of ['soon', '-5', '1.5', '12 parsecs']) expect(await after(text), text).to.equal(undefined);
  });

  it('give up on a receiver that takes the request and says nothing', async () => {
    receiver.answer = () => undefined;
    const begun = performance.now();
    expect(await deliver()).to.deep.equal({ outcome: 'retry', answer: 'not done within 0.5 s' });
    expect(performance.now() - begun).to.be.within(400, 2_000);
  });

  it('take the status of an answer whose body never ends', async () => {
    receiver.answer = (response) => {
      response.writeHead(200);
      response.write('thank you');
    };
    expect(await deliver()).to.deep.equal({ outcome: 'delivered', status: 200, answer: 'thank you' });
  });

  it('read no more than the beginning of a long answer, and close', async () => {
    let written = 0;
    receiver.answer = (response, _, socket) => {
      response.writeHead(500);
      const more = (): void => {
        if (socket.destroyed || written > 64 * 1024 ** 2) return;
        written += 65_536;
        if (response.write(Buffer.alloc(65_536, 'x'))) setImmediate(more);
        else response.once('drain', more);
      };
      more();
    };
    const attempt = await deliver();
    expect(attempt).to.include({ outcome: 'retry', status: 500 });
    expect(attempt.answer).to.have.length(512);
    expect(written).to.be.lessThan(32 * 1024 ** 2);
  });

  it('store one clean line of an answer', async () => {
    receiver.answer = answers(500, 'a\r\nb\0c\u001b[31m\u202ed\u2028e \ud83d\ude00');
    expect((await deliver()).answer).to.equal('a bc[31md e 😀');
  });

  it('blot out secrets that a receiver repeats', async () => {
    const token = 'T0KEN567890ABCDEF';
    receiver.answer = answers(400, `bad ${secret} ${secret.slice(6)} /services/${token}`);
    const { answer } = await deliver(target(`/services/${token}`));
    expect(answer).to.equal('bad *** *** /services/***');
  });

  it('try again when nobody is there, the connection breaks, or what answers is no HTTP', async () => {
    receiver.answer = (_, __, socket) => socket.destroy();
    expect(await deliver()).to.deep.equal({ outcome: 'retry', answer: 'the receiver closed the connection without an answer' });
    receiver.answer = (_, __, socket) => socket.end('220 smtp ready\r\n');
    expect((await deliver()).outcome).to.equal('retry');
    receiver.answer = (_, __, socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n');
    expect((await deliver()).outcome).to.equal('retry');
    const gone = target();
    await receiver.close();
    expect(await deliver(gone)).to.deep.equal({ outcome: 'retry', answer: 'connection refused' });
  });

  it('try again at once when a kept connection turns out to be closed', async () => {
    await deliver();
    let closed = false;
    // The server gives the connection up just as the next request comes over it.
    receiver.answer = (response, received, socket) => {
      if (!closed) {
        closed = true;
        socket.resetAndDestroy();
      } else answers(200, 'second')(response, received, socket);
    };
    expect(await deliver()).to.include({ outcome: 'delivered', answer: 'second' });
    expect(receiver.connections).to.equal(2);
  });

  it('keep connections', async () => {
    for (let i = 0; i < 5; i++) await deliver();
    expect(receiver.connections).to.equal(1);
  });

  it('stop when told', async () => {
    receiver.answer = () => undefined;
    const stopping = new AbortController();
    const slow = webhookChannel({ rules, userAgent: 'x' });
    const attempt = slow.deliver(firing(), target(), stopping.signal);
    setTimeout(() => stopping.abort(new Error('stopping')), 50);
    expect(await attempt).to.deep.equal({ outcome: 'retry', answer: 'stopping' });
    await slow.close();
  });

  it('fail for good where the guard refuses', async () => {
    const strict = webhookChannel({
      rules: { allowPrivate: false },
      userAgent: 'x',
      agents: guardedAgents({ allowPrivate: false }, { resolve: () => Promise.resolve(['8.8.8.8', '10.0.0.1']) }),
    });
    const to = (url: string): Promise<Attempt> => strict.deliver(firing(), { channel: 'webhook', url, secrets: [] }, signal);
    expect(await to('https://169.254.169.254/')).to.deep.equal({
      outcome: 'failed',
      answer: 'the URL leads to 169.254.169.254, a cloud metadata address, which is not allowed',
    });
    expect(await to('https://mixed.example.com/')).to.deep.equal({
      outcome: 'failed',
      answer: 'mixed.example.com leads to 10.0.0.1, a private address, which is not allowed',
    });
    await strict.close();
  });

  it('fail for good with a secret that is none, without repeating it', async () => {
    const { outcome, answer } = await deliver(target('/hook', ['hunter2']));
    expect(outcome).to.equal('failed');
    expect(answer)
      .to.match(/secret/)
      .and.not.include('hunter2');
    expect(receiver.received).to.deep.equal([]);
  });
});
