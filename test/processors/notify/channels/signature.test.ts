import { expect } from 'chai';
import fc from 'fast-check';
import { Webhook } from 'standardwebhooks';
import { newSecret, secretKey } from '../../../../processors/notify/channels/secret.ts';
import { judgeSecret } from '../../../../schemas/webhook-secret.ts';
import { signedHeaders } from '../../../../processors/notify/channels/signature.ts';

describe('webhook signatures', () => {
  it('are those of Standard Webhooks’ own example', () => {
    const headers = signedHeaders('msg_p5jXN8AQM9LWM0D4loKWxJek', 1_614_265_330, Buffer.from('{"test": 2432232314}'), [
      'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
    ]);
    expect(headers).to.deep.equal({
      'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'webhook-timestamp': '1614265330',
      'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    });
  });

  it('are accepted by its library, for any id, body and secret', () => {
    const key = fc.uint8Array({ minLength: 24, maxLength: 64 }).map((bytes) => `whsec_${Buffer.from(bytes).toString('base64')}`);
    fc.assert(
      fc.property(fc.stringMatching(/^[a-zA-Z0-9_-]{1,40}$/), fc.json(), key, (id, body, secret) => {
        const headers = signedHeaders(id, Math.floor(Date.now() / 1_000), Buffer.from(body), [secret]);
        expect(new Webhook(secret).verify(body, headers!)).to.deep.equal(JSON.parse(body));
      }),
    );
  });

  it('are there for each secret while one replaces another, so that receivers with either accept', () => {
    const [before, after] = [newSecret(), newSecret()];
    const headers = signedHeaders('n1', Math.floor(Date.now() / 1_000), Buffer.from('{}'), [after, before])!;
    expect(headers['webhook-signature']).to.match(/^v1,\S{44} v1,\S{44}$/);
    for (const secret of [before, after]) expect(new Webhook(secret).verify('{}', headers)).to.deep.equal({});
    expect(() => new Webhook(newSecret()).verify('{}', headers)).to.throw();
  });

  it('cover id, time and body', () => {
    const secret = newSecret();
    const now = Math.floor(Date.now() / 1_000);
    const headers = signedHeaders('n1', now, Buffer.from('{"a":1}'), [secret])!;
    const webhook = new Webhook(secret);
    expect(() => webhook.verify('{"a":2}', headers)).to.throw();
    expect(() => webhook.verify('{"a":1}', { ...headers, 'webhook-id': 'n2' })).to.throw();
    expect(() => webhook.verify('{"a":1}', { ...headers, 'webhook-timestamp': String(now + 1) })).to.throw();
  });

  it('are left out without a secret, and not made with a text that is none', () => {
    expect(signedHeaders('n1', 1, Buffer.of(), [])).to.not.have.property('webhook-signature');
    expect(signedHeaders('n1', 1, Buffer.of(), [newSecret(), 'hunter2'])).to.equal(undefined);
  });
});

describe('webhook secrets', () => {
  it('are 24 to 64 bytes in base64; one without whsec_ can be used, but not given', () => {
    const bytes = (n: number): string => Buffer.alloc(n, 7).toString('base64');
    expect(judgeSecret(newSecret())).to.equal(undefined);
    expect(judgeSecret(`whsec_${bytes(24)}`)).to.equal(undefined);
    expect(secretKey(bytes(24))).to.have.length(24);
    expect(secretKey(`whsec_${bytes(64)}`)).to.have.length(64);
    for (const text of [
      '',
      'whsec_',
      `whsec_${bytes(23)}`,
      `whsec_${bytes(65)}`,
      `${bytes(32)} `,
      `whsec_${bytes(32).slice(1)}`,
      'a'.repeat(31),
      `${bytes(32)}\n`,
      bytes(33).replace(/.$/, '_'),
    ]) {
      expect(judgeSecret(text), text).to.match(/^must be whsec_/);
      expect(secretKey(text), text).to.equal(undefined);
    }
  });

  it('are never repeated in a message', () => {
    expect(judgeSecret('hunter2hunter2')).to.not.include('hunter2');
  });
});
