import { expect } from 'chai';
import { createECDH, randomBytes } from 'node:crypto';
import { startRest, vapidKey, type Rest } from './support/rest.ts';

const path = '/v2/devices';

/** What `JSON.stringify(await registration.pushManager.subscribe(…))` gives. */
function subscription(endpoint = `https://push.example.com/send/${randomBytes(8).toString('hex')}`): {
  endpoint: string;
  expirationTime: null;
  keys: { p256dh: string; auth: string };
} {
  const browser = createECDH('prime256v1');
  return {
    endpoint,
    expirationTime: null,
    keys: { p256dh: browser.generateKeys('base64url'), auth: randomBytes(16).toString('base64url') },
  };
}

describe(path, function () {
  this.timeout(120_000);
  let rest: Rest;
  before(async () => {
    rest = await startRest();
  });
  after(() => rest?.close());
  beforeEach(() => rest.sql('DELETE FROM headwater.user_devices'));

  it('takes a subscription as browsers give it, shows it without its keys, and forgets it', async () => {
    const given = subscription();
    const made = await rest.call('POST', path, { ...given, label: 'phone' });
    expect(made.status, made.text).to.equal(201);
    expect(made.body).to.deep.include({ endpoint: given.endpoint, label: 'phone' });
    const list = await rest.call('GET', path);
    expect(list.body.items).to.deep.equal([made.body]);
    expect(list.text).not.to.include(given.keys.auth).and.not.include(given.keys.p256dh);
    const [row] = await rest.sql('SELECT user_id, p256dh, auth FROM headwater.user_devices');
    expect(row).to.deep.equal({ user_id: 'ann', ...given.keys });
    expect((await rest.call('DELETE', `${path}/${made.body.id}`, undefined, { as: 'bob' })).status).to.equal(404);
    expect((await rest.call('DELETE', `${path}/${made.body.id}`)).status).to.equal(204);
    expect((await rest.call('DELETE', `${path}/${made.body.id}`)).status).to.equal(404);
  });

  it('the same browser again is the same device, with its new keys', async () => {
    const given = subscription();
    const { id } = (await rest.call('POST', path, { ...given, label: 'phone' })).body;
    const renewed = subscription(given.endpoint);
    const again = await rest.call('POST', path, renewed);
    expect([again.status, again.body.id, again.body['label']]).to.deep.equal([200, id, 'phone']);
    expect(await rest.sql('SELECT p256dh, auth FROM headwater.user_devices')).to.deep.equal([renewed.keys]);
  });

  it('a browser that another user signs in with is his from then on; its endpoint alone takes nothing', async () => {
    const given = subscription();
    expect((await rest.call('POST', path, given)).status).to.equal(201);
    const thief = await rest.call('POST', path, subscription(given.endpoint), { as: 'bob' });
    expect([thief.status, thief.error.code, thief.error.field]).to.deep.equal([409, 'conflict', 'endpoint']);
    expect((await rest.call('POST', path, given, { as: 'bob' })).status).to.equal(201);
    expect((await rest.call('GET', path)).body.items).to.deep.equal([]);
    expect((await rest.call('GET', path, undefined, { as: 'bob' })).body.items).to.have.length(1);
  });

  const faults: [string, (given: ReturnType<typeof subscription>) => object, string][] = [
    ['no endpoint', ({ keys }) => ({ keys }), 'endpoint'],
    ['an endpoint into this machine', ({ keys }) => ({ endpoint: 'https://127.0.0.1/x', keys }), 'endpoint'],
    ['an endpoint without TLS', ({ keys }) => ({ endpoint: 'http://push.example.com/x', keys }), 'endpoint'],
    ['no keys', ({ endpoint }) => ({ endpoint }), 'keys.p256dh'],
    ['a key that is too short', (given) => ({ ...given, keys: { ...given.keys, p256dh: 'BAAA' } }), 'keys.p256dh'],
    ['a key that is not on the curve', (given) => ({ ...given, keys: { ...given.keys, p256dh: `B${'A'.repeat(86)}` } }), 'keys.p256dh'],
    ['a secret of another size', (given) => ({ ...given, keys: { ...given.keys, auth: 'AAAA' } }), 'keys.auth'],
    ['a label that is no text', (given) => ({ ...given, label: 7 }), 'label'],
    ['a member that is not there', (given) => ({ ...given, user_id: 'bob' }), 'user_id'],
  ];
  for (const [what, change, field] of faults) {
    it(`${what}: ${field}`, async () => {
      const answer = await rest.call('POST', path, change(subscription()));
      expect([answer.status, answer.error.field], answer.text).to.deep.equal([400, field]);
    });
  }

  it('tells browsers the key to subscribe with', async () => {
    expect((await rest.call('GET', '/v2/push/key')).body).to.deep.equal({ publicKey: vapidKey });
  });
});
