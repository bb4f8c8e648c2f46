import { expect } from 'chai';
import { createServer, type AddressInfo } from 'node:net';
import type { Attempt, Channel, Notice } from '../../../../processors/notify/channel.ts';
import { emailChannel } from '../../../../processors/notify/channels/email.ts';
import { parseMailbox } from '../../../../processors/notify/channels/mailbox.ts';
import { judgeRecipient } from '../../../../schemas/recipient.ts';
import { certificate, key } from './support/certificate.ts';
import { refusal, startMailServer, type Delivery, type MailServer } from './support/mail-server.ts';
import { alert, digest, firing, resolved, rule } from './support/notices.ts';

describe('emails', () => {
  const from = { name: 'Headwater', address: 'alerts@example.com' };
  const wording = { locale: 'en', link: 'https://console.example.com/alerts/{alert}' };
  const cleanups: (() => Promise<void>)[] = [];

  afterEach(async () => {
    for (const clean of cleanups.splice(0).toReversed()) await clean();
  });

  async function started(options?: Parameters<typeof startMailServer>[0]): Promise<MailServer> {
    const server = await startMailServer(options);
    cleanups.push(() => server.close());
    return server;
  }

  function channelTo(smtpUrl: string, timeoutMs = 5_000): Channel {
    const channel = emailChannel({ smtpUrl, from, wording, timeoutMs });
    cleanups.push(() => channel.close());
    return channel;
  }

  function send(channel: Channel, notice: Notice = firing(), to = 'me@example.org'): Promise<Attempt> {
    return channel.deliver(notice, { channel: 'email', to }, new AbortController().signal);
  }

  /** A header of a message as it came, unfolded. */
  function header({ raw }: Delivery, name: string): string | undefined {
    return new RegExp(`^${name}: (.*)$`, 'im').exec(raw.replaceAll(/\r\n[ \t]+/g, ' ').replaceAll('\r', ''))?.[1];
  }

  it('arrive at one recipient, as text and as HTML, and say that a machine wrote them', async () => {
    const server = await started();
    const attempt = await send(channelTo(`smtp://127.0.0.1:${server.port}`));
    expect(attempt).to.include({ outcome: 'delivered', status: 250 });
    const [delivery] = server.deliveries;
    expect(delivery).to.include({ from: 'alerts@example.com' });
    expect(delivery!.to).to.deep.equal(['me@example.org']);
    const { mail } = delivery!;
    expect(mail.subject).to.equal('[warning] Ether is dear: weth, Base');
    expect(mail.from?.text).to.equal('"Headwater" <alerts@example.com>');
    expect(mail.date?.toISOString()).to.equal('2026-11-22T20:35:29.000Z');
    expect(mail.text).to.include('price is 1,234,567.10, above 1,000,000').and.include(`https://console.example.com/alerts/${alert.id}`);
    expect(mail.html)
      .to.include('price is 1,234,567.10, above 1,000,000')
      .and.include(`href="https://console.example.com/alerts/${alert.id}"`);
    expect(mail.headers.get('auto-submitted')).to.equal('auto-generated');
    expect(delivery!.raw).to.match(/^Content-Type: multipart\/alternative/m);
    expect(header(delivery!, 'List-Id')).to.equal(`<rule.${rule.id}.example.com>`);
  });

  it('have the same Message-ID at each attempt, another one for each notice, and thread by alert', async () => {
    const server = await started();
    const channel = channelTo(`smtp://127.0.0.1:${server.port}`);
    for (const notice of [firing(), firing(), resolved(), firing({ id: 'x/y z', alert: { id: 'other' } }), digest(3)])
      await send(channel, notice);
    const [first, again, over, other, summary] = server.deliveries.map(({ mail }) => mail);
    expect(first!.messageId).to.equal('<ntf_2b1f@example.com>');
    expect(again!.messageId).to.equal(first!.messageId);
    expect(over!.messageId).to.equal('<ntf_2b20@example.com>');
    expect(first!.inReplyTo).to.equal(`<alert.${alert.id}@example.com>`);
    expect(over!.references).to.deep.equal(first!.references).and.deep.equal(`<alert.${alert.id}@example.com>`);
    expect(other!.messageId).to.match(/^<[0-9a-f]{40}@example\.com>$/);
    expect(other!.references).to.not.deep.equal(first!.references);
    expect(summary!.references).to.equal(undefined);
  });

  it('stand out when critical, and are quiet when over', async () => {
    const server = await started();
    const channel = channelTo(`smtp://127.0.0.1:${server.port}`);
    for (const notice of [firing(), firing({ alert: { severity: 'critical' } }), resolved({ alert: { severity: 'critical' } })])
      await send(channel, notice);
    expect(server.deliveries.map((delivery) => header(delivery, 'Importance'))).to.deep.equal([undefined, 'high', 'low']);
    expect(server.deliveries[2]!.mail.subject).to.equal('Resolved: Ether is dear: weth, Base');
  });

  it('cannot be bent by the texts of rules and rows', async () => {
    const server = await started();
    const evil = 'x\r\nBcc: spy@example.net\r\n\r\n<script>alert(1)</script>\u202e=?utf-8?q?=0d=0aBcc:_spy?=\u2028To: spy2@example.net\0';
    const notice = firing({
      id: 'n\r\nBcc: spy@example.net',
      rule: { name: evil, condition: evil, table: evil, id: evil },
      alert: { entity: { [evil]: evil }, value: evil, id: evil },
    });
    expect(await send(channelTo(`smtp://127.0.0.1:${server.port}`), notice)).to.include({ outcome: 'delivered' });
    const [{ to, mail, raw }] = server.deliveries as [MailServer['deliveries'][number]];
    expect(to).to.deep.equal(['me@example.org']);
    expect([mail.bcc, mail.cc]).to.deep.equal([undefined, undefined]);
    expect(mail.headers.get('to')).to.have.property('text', 'me@example.org');
    const [head] = raw.split('\r\n\r\n') as [string];
    expect(
      head
        .split(/\r\n(?![ \t])/)
        .map((line) => line.split(':')[0]!.toLowerCase())
        .sort(),
    ).to.deep.equal([
      'auto-submitted',
      'content-type',
      'date',
      'from',
      'in-reply-to',
      'list-id',
      'message-id',
      'mime-version',
      'references',
      'subject',
      'to',
      'x-auto-response-suppress',
    ]);
    expect(mail.html).to.not.match(/<script/i);
    expect(mail.subject).to.not.match(/[\r\n\0\u202e\u2028]/);
  });

  it('go to one plain address and to nothing else', async () => {
    const server = await started();
    const channel = channelTo(`smtp://127.0.0.1:${server.port}`);
    const refused = [
      '',
      'me',
      '@example.org',
      'me@',
      'a@example.org, b@example.org',
      'a@example.org;b@example.org',
      'Me <me@example.org>',
      '<me@example.org>',
      'me@example.org\r\nRCPT TO:<spy@example.net>',
      'me@example.org\nBcc: spy@example.net',
      '"a b"@example.org',
      '"a@b"@example.org',
      'me@[127.0.0.1]',
      'me@localhost',
      'me @example.org',
      'group: a@example.org;',
      'me(comment)@example.org',
      'a..b@example.org',
      '.a@example.org',
      'me@example..org',
      'me@-example.org',
      'me@exam_ple.org',
      'mé@example.org',
      'me@exämple.org',
      'me@example.org\0',
      'me@1.2.3.4',
      `${'a'.repeat(65)}@example.org`,
      `me@${'a.'.repeat(130)}org`,
      '@a,@b:me@example.org',
      'me@example.org SIZE=1',
      'me%spy@',
      'a@b@example.org',
    ];
    for (const to of refused) {
      const attempt = await send(channel, firing(), to);
      expect(attempt.outcome, to).to.equal('failed');
      expect(attempt.answer, to).to.match(/^the recipient must be/);
    }
    expect(server.connections).to.equal(0);
    for (const to of ['me@example.org', "o'brien+alerts@sub.example.co.uk", 'a.b_c-d%e@xn--exmple-cua.org', 'A@EXAMPLE.ORG'])
      expect(judgeRecipient(to), to).to.equal(undefined);
  });

  it('share connections', async () => {
    const server = await started();
    const channel = channelTo(`smtp://127.0.0.1:${server.port}`);
    for (let i = 0; i < 5; i++) await send(channel, firing({ id: `n${i}` }));
    expect(server.connections).to.equal(1);
    expect(
      (await Promise.all(Array.from({ length: 20 }, (_, i) => send(channel, firing({ id: `m${i}` }))))).every(
        ({ outcome }) => outcome === 'delivered',
      ),
    ).to.equal(true);
    expect(server.deliveries).to.have.length(25);
    expect(server.connections).to.be.at.most(4);
  });

  it('fail for good when the server refuses the recipient or the message, and are tried again when it asks for that', async () => {
    for (const [code, outcome] of [
      [550, 'failed'],
      [553, 'failed'],
      [450, 'retry'],
      [421, 'retry'],
      [503, 'retry'],
    ] as const) {
      const server = await started({ onRcptTo: (_, __, callback) => callback(refusal(code, 'because of the recipient')) });
      const attempt = await send(channelTo(`smtp://127.0.0.1:${server.port}`));
      expect(attempt, String(code)).to.include({ outcome, status: code });
      expect(attempt.answer).to.include('because of the recipient');
    }
    for (const [code, outcome] of [
      [554, 'failed'],
      [451, 'retry'],
    ] as const) {
      const server = await started({
        onData: (stream, _, callback) => {
          stream.resume();
          stream.on('end', () => callback(refusal(code, 'because of the message')));
        },
      });
      expect(await send(channelTo(`smtp://127.0.0.1:${server.port}`)), String(code)).to.include({ outcome, status: code });
    }
  });

  it('are tried again when it is the operator who has to act: log-in, TLS, a server that is away or silent', async () => {
    const auth = await started({ authOptional: false, onAuth: (_, __, callback) => callback(refusal(535, 'wrong password')) });
    const attempt = await send(channelTo(`smtp://me:hunter2@127.0.0.1:${auth.port}`));
    expect(attempt).to.include({ outcome: 'retry', status: 535 });
    expect(attempt.answer).to.not.include('hunter2');

    const tls = await started({ disabledCommands: [], cert: certificate, key });
    expect(await send(channelTo(`smtp://127.0.0.1:${tls.port}`))).to.include({ outcome: 'retry' });
    expect(await send(channelTo(`smtp://127.0.0.1:${tls.port}?tls.rejectUnauthorized=false`))).to.include({ outcome: 'delivered' });

    const silent = createServer();
    await new Promise<void>((resolve) => void silent.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => new Promise((resolve) => void silent.close(() => resolve())));
    const { port } = silent.address() as AddressInfo;
    expect(await send(channelTo(`smtp://127.0.0.1:${port}`, 300))).to.deep.equal({ outcome: 'retry', answer: 'not done within 0.3 s' });

    const away = await startMailServer();
    await away.close();
    expect(await send(channelTo(`smtp://127.0.0.1:${away.port}`))).to.include({ outcome: 'retry' });
  });

  it('send no password without TLS to another machine', async () => {
    let auths = 0;
    const server = await started({
      authMethods: ['PLAIN'],
      allowInsecureAuth: true,
      onAuth: (_, __, callback) => {
        auths++;
        callback(null, { user: 'me' });
      },
    });
    // 0.0.0.0 leads here too, but is not recognised as this machine.
    expect(await send(channelTo(`smtp://me:hunter2@0.0.0.0:${server.port}`))).to.include({ outcome: 'retry' });
    expect(auths).to.equal(0);
    expect(await send(channelTo(`smtp://me:hunter2@0.0.0.0:${server.port}?requireTLS=false`))).to.include({ outcome: 'delivered' });
    expect(await send(channelTo(`smtp://me:hunter2@127.0.0.1:${server.port}`))).to.include({ outcome: 'delivered' });
    expect(auths).to.equal(2);
  });

  it('stop when told', async () => {
    const server = await started({ onRcptTo: () => undefined });
    const stopping = new AbortController();
    const attempt = channelTo(`smtp://127.0.0.1:${server.port}`).deliver(
      firing(),
      { channel: 'email', to: 'me@example.org' },
      stopping.signal,
    );
    setTimeout(() => stopping.abort(new Error('stopping')), 100);
    expect(await attempt).to.deep.equal({ outcome: 'retry', answer: 'stopping' });
  });
});

describe('the sender of emails', () => {
  it('is an address, with or without a name', () => {
    expect(parseMailbox('alerts@example.com')).to.deep.equal({ name: '', address: 'alerts@example.com' });
    expect(parseMailbox(' Head Water, Inc. <alerts@example.com> ')).to.deep.equal({
      name: 'Head Water, Inc.',
      address: 'alerts@example.com',
    });
    expect(parseMailbox('"Head Water" <alerts@example.com>')).to.deep.equal({ name: 'Head Water', address: 'alerts@example.com' });
    for (const text of ['', 'Headwater', 'a@example.com, b@example.com', 'Name <a@example.com', 'X\r\nBcc: b@example.com <a@example.com>'])
      expect(parseMailbox(text), text).to.equal(undefined);
  });
});
