import { expect } from 'chai';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadSecrets } from '../../../../deploy/local/secrets.ts';
import { readConfig } from '../../../../pipeline/runtime/config.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import type { Attempt, Target } from '../../../../processors/notify/channel.ts';
import { createChannels } from '../../../../processors/notify/channels/create-channels.ts';
import { firing } from './support/notices.ts';
import { startMailServer } from './support/mail-server.ts';

const targets: Readonly<Record<Target['channel'], Target>> = {
  webhook: { channel: 'webhook', url: 'http://127.0.0.1:9/', secrets: [] },
  email: { channel: 'email', to: 'me@example.org' },
  push: { channel: 'push', deviceId: 'd', endpoint: 'http://127.0.0.1:9/', p256dh: '', auth: '' },
};

describe('channels from settings', () => {
  async function attempt(env: Record<string, string>, name: Target['channel']): Promise<Attempt> {
    const channels = createChannels(readConfig(env), silentLogger(), '1.2.3');
    try {
      return await channels[name].deliver(firing(), targets[name], new AbortController().signal);
    } finally {
      await Promise.all(Object.values(channels).map((channel) => channel.close()));
    }
  }

  const missing: readonly (readonly [Target['channel'], Record<string, string>, RegExp])[] = [
    ['email', {}, /HEADWATER_SMTP_URL is not set/],
    ['email', { HEADWATER_SMTP_URL: 'smtp://127.0.0.1:9' }, /HEADWATER_MAIL_FROM is not set/],
    ['email', { HEADWATER_SMTP_URL: 'smtp://127.0.0.1:9', HEADWATER_MAIL_FROM: 'nobody' }, /HEADWATER_MAIL_FROM must be an address/],
    ['push', {}, /HEADWATER_VAPID_PUBLIC_KEY and HEADWATER_VAPID_PRIVATE_KEY are not set/],
    ['push', { HEADWATER_VAPID_PUBLIC_KEY: 'abc' }, /must be the two keys of one P-256 pair/],
    ['webhook', {}, /HEADWATER_ALLOW_PRIVATE_WEBHOOKS/],
  ];
  for (const [name, env, answer] of missing)
    it(`${name} with ${Object.keys(env).join(' and ') || 'nothing'} set fails with the name of the setting`, async () => {
      const found = await attempt(env, name);
      expect(found.outcome).to.equal('failed');
      expect(found.answer).to.match(answer);
    });

  it('allow private webhooks when told', async () => {
    expect(await attempt({ HEADWATER_ALLOW_PRIVATE_WEBHOOKS: 'true' }, 'webhook')).to.deep.equal({
      outcome: 'retry',
      answer: 'connection refused',
    });
  });

  it('send email in the locale and with the link that are set', async () => {
    const server = await startMailServer();
    const env = {
      HEADWATER_SMTP_URL: `smtp://127.0.0.1:${server.port}`,
      HEADWATER_MAIL_FROM: 'Headwater <alerts@example.com>',
      HEADWATER_LOCALE: 'de',
      HEADWATER_LINK: 'https://console.example.com/{rule}/{alert}',
    };
    expect((await attempt(env, 'email')).outcome).to.equal('delivered');
    await server.close();
    expect(server.deliveries[0]!.mail.text)
      .to.include('price is 1.234.567,10, above 1.000.000')
      .and.match(/https:\/\/console\.example\.com\/3f2b8a9c-\S+\/0b9a3c1e-/);
  });

  it('are refused with a locale or a contact that is none', () => {
    expect(() => readConfig({ HEADWATER_LOCALE: 'not a locale' })).to.throw('HEADWATER_LOCALE must be a locale like en');
    expect(() => readConfig({ HEADWATER_VAPID_SUBJECT: 'ops@example.com' })).to.throw('HEADWATER_VAPID_SUBJECT must be a URL like mailto:');
    expect(() => readConfig({ HEADWATER_SMTP_URL: 'http://x' })).to.throw('HEADWATER_SMTP_URL must begin with smtp://');
  });
});

describe('the kept keys of web push', () => {
  it('are made once, also for data of before, and work', async () => {
    const data = mkdtempSync(join(tmpdir(), 'hw-secrets-'));
    try {
      const first = loadSecrets(data);
      expect(loadSecrets(data)).to.deep.equal(first);
      const { vapid: _, ...older } = first;
      writeFileSync(join(data, 'secrets.json'), JSON.stringify(older));
      const second = loadSecrets(data);
      expect(second).to.deep.include(older);
      expect(second.vapid).to.not.deep.equal(first.vapid);
      expect(JSON.parse(readFileSync(join(data, 'secrets.json'), 'utf8'))).to.deep.equal(second);
      const config = readConfig({
        HEADWATER_VAPID_PUBLIC_KEY: second.vapid.publicKey,
        HEADWATER_VAPID_PRIVATE_KEY: second.vapid.privateKey,
      });
      const { push } = createChannels({ ...config, allowPrivateWebhooks: true }, silentLogger());
      // Past the settings, at the device's own keys.
      expect((await push.deliver(firing(), targets.push, new AbortController().signal)).answer).to.match(/^the device’s p256dh/);
      await push.close();
    } finally {
      rmSync(data, { recursive: true });
    }
  });
});
