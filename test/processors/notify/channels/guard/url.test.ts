import { expect } from 'chai';
import fc from 'fast-check';
import { addressJudge } from '../../../../../processors/notify/channels/guard/address.ts';
import { judgeUrl } from '../../../../../processors/notify/channels/guard/url.ts';

const production = { allowPrivate: false };
const development = { allowPrivate: true };

/** Trick → URL and what a person is told. */
const tricks: readonly (readonly [trick: string, url: string, fault: RegExp])[] = [
  ['loopback', 'https://127.0.0.1/', /leads to 127\.0\.0\.1, a loopback address/],
  ['an octal address', 'https://0177.0.0.1/', /127\.0\.0\.1, a loopback/],
  ['an octal address with more zeros', 'https://00000177.0.0.1/', /127\.0\.0\.1, a loopback/],
  ['a hexadecimal address', 'https://0x7f.0x0.0x0.0x1/', /127\.0\.0\.1, a loopback/],
  ['a hexadecimal dword', 'https://0x7f000001/', /127\.0\.0\.1, a loopback/],
  ['a dword', 'https://2130706433/', /127\.0\.0\.1, a loopback/],
  ['an octal dword', 'https://017700000001/', /127\.0\.0\.1, a loopback/],
  ['a dword of the metadata service', 'https://2852039166/', /169\.254\.169\.254, a cloud metadata/],
  ['a short address', 'https://127.1/', /127\.0\.0\.1, a loopback/],
  ['a shorter address', 'https://0/', /0\.0\.0\.0, an unspecified/],
  ['a mixed address', 'https://0x7f.1/', /127\.0\.0\.1, a loopback/],
  ['a public address in octal', 'https://010.010.010.010/', /must write its address as 8\.8\.8\.8/],
  ['a public address as a dword', 'https://134744072/', /must write its address as 8\.8\.8\.8/],
  ['full-width digits', 'https://１２７.０.０.１/', /127\.0\.0\.1, a loopback/],
  ['circled digits', 'https://①②⑦.⓪.⓪.①/', /127\.0\.0\.1, a loopback/],
  ['mathematical digits', 'https://𝟏𝟐𝟕.𝟎.𝟎.𝟏/', /127\.0\.0\.1, a loopback/],
  ['ideographic full stops', 'https://127。0。0。1/', /127\.0\.0\.1, a loopback/],
  ['full-width full stops', 'https://169．254．169．254/', /a cloud metadata/],
  ['letters of another alphabet', 'https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/', /leads to localhost, which is not a name on the public internet/],
  ['percent-encoded digits', 'https://%31%32%37.0.0.1/', /% in its host/],
  ['a percent-encoded name', 'https://%6c%6f%63%61%6c%68%6f%73%74/', /% in its host/],
  ['a trailing dot on an address', 'https://127.0.0.1./', /127\.0\.0\.1, a loopback/],
  ['a trailing dot on a name', 'https://localhost./', /leads to localhost/],
  ['a trailing dot on a public name', 'https://example.com./', /dot at the end/],
  ['dots alone', 'https://.../', /not a name on the public internet/],
  ['IPv6 loopback', 'https://[::1]/', /a loopback/],
  ['IPv6 loopback at length', 'https://[0000:0000:0000:0000:0000:0000:0000:0001]/', /a loopback/],
  ['IPv6 unspecified', 'https://[::]/', /an unspecified/],
  ['an IPv4-mapped address', 'https://[::ffff:127.0.0.1]/', /inside an IPv6/],
  ['an IPv4-mapped address in hexadecimal', 'https://[::ffff:7f00:1]/', /inside an IPv6/],
  ['an IPv4-compatible address', 'https://[::127.0.0.1]/', /inside an IPv6/],
  ['a translated address', 'https://[::ffff:0:7f00:1]/', /inside an IPv6/],
  ['NAT64', 'https://[64:ff9b::a9fe:a9fe]/', /inside an IPv6/],
  ['NAT64 for local use', 'https://[64:ff9b:1::7f00:1]/', /inside an IPv6/],
  ['6to4', 'https://[2002:7f00:1::]/', /inside an IPv6/],
  ['Teredo', 'https://[2001::1]/', /inside an IPv6/],
  ['a unique local address', 'https://[fd12:3456::1]/', /a private/],
  ['a link-local address', 'https://[fe80::1]/', /link-local/],
  ['a zone', 'https://[fe80::1%25eth0]/', /% in its host/],
  ['the metadata service', 'https://169.254.169.254/latest/meta-data/', /metadata address/],
  ['the metadata service over IPv6', 'https://[fd00:ec2::254]/', /metadata address/],
  ['Azure’s wire server', 'https://168.63.129.16/', /metadata address/],
  ['Google’s metadata name', 'https://metadata.google.internal/', /a cloud metadata service/],
  ['Google’s metadata name in capitals with a dot', 'https://METADATA.Google.Internal./', /a cloud metadata service/],
  ['the short metadata name', 'https://metadata/', /a cloud metadata service/],
  ['localhost', 'https://localhost/', /not a name on the public internet/],
  ['a name below localhost', 'https://a.b.localhost/', /not a name on the public internet/],
  ['.local', 'https://printer.local/', /not a name on the public internet/],
  ['.internal', 'https://db.internal/', /not a name on the public internet/],
  ['a cluster’s service', 'https://redis.default.svc/', /not a name on the public internet/],
  ['a name without a dot', 'https://intranet/', /not a name on the public internet/],
  ['a user name', 'https://me@example.com/', /user name/],
  ['a user name and a password', 'https://me:pw@example.com/', /user name/],
  ['an empty user name', 'https://@example.com/', /user name/],
  ['a host as user info', 'https://example.com@127.0.0.1/', /user name/],
  ['an encoded @', 'https://example.com%40127.0.0.1/', /% in its host/],
  ['a backslash for a slash', 'https:\\\\127.0.0.1/', /backslash/],
  ['a backslash in the host', 'https://example.com\\@127.0.0.1/', /backslash/],
  ['a line break', 'https://exam\nple.com/', /line breaks/],
  ['a tab', 'https://127.0\t.0.1/', /line breaks/],
  ['a space before it', ' https://example.com/', /spaces/],
  ['a NUL', 'https://example.com/\0', /control characters/],
  ['a soft hyphen', 'https://local\u00adhost/', /invisible/],
  ['a zero-width space', 'https://127.0.0.1\u200b/', /invisible/],
  ['no slashes', 'https:example.com', /must begin with https:\/\//],
  ['one slash', 'https:/example.com', /must begin with https:\/\//],
  ['three slashes', 'https:///example.com/', /must begin with https:\/\//],
  ['no scheme', '//example.com/', /must begin with https:\/\//],
  ['plain HTTP', 'http://example.com/', /must begin with https:\/\/; for development, HEADWATER_ALLOW_PRIVATE_WEBHOOKS=true/],
  ['a file', 'file:///etc/passwd', /must begin with https:\/\//],
  ['FTP', 'ftp://example.com/', /must begin with https:\/\//],
  ['gopher', 'gopher://127.0.0.1:6379/_', /must begin with https:\/\//],
  ['a script', 'javascript:alert(1)', /must begin with https:\/\//],
  ['data', 'data:text/plain,x', /must begin with https:\/\//],
  ['port 0', 'https://example.com:0/', /port 0/],
  ['a port that is none', 'https://example.com:99999/', /must be a URL/],
  ['an empty text', '', /must begin with https:\/\//],
  ['a very long one', `https://example.com/${'x'.repeat(2_100)}`, /at most 2048/],
];

describe('the judge of URLs', () => {
  for (const [trick, url, fault] of tricks)
    it(`refuses ${trick}`, () => {
      expect(judgeUrl(url, production).fault).to.match(fault);
    });

  const fine = [
    'https://example.com/',
    'https://hooks.example.com:8443/a/b?c=d#e',
    'https://bücher.example.com/',
    'https://8.8.8.8/',
    'https://[2606:4700:0::1111]/',
    'HTTPS://Example.COM',
    'https://1.2.3.4.example.com/',
    'https://example.com/\u00e9?x=%20@',
  ];
  for (const url of fine)
    it(`lets ${url} pass`, () => {
      expect(judgeUrl(url, production).url?.href).to.equal(new URL(url).href);
    });

  it('for development, also takes http, loopback, private addresses and names without a dot', () => {
    for (const url of [
      'http://localhost:3000/hook',
      'http://127.0.0.1:9/',
      'https://10.1.2.3/',
      'http://[::1]:1/',
      'http://[fd12::1]/',
      'http://api/',
      'http://db.internal/',
    ])
      expect(judgeUrl(url, development).fault, url).to.equal(undefined);
  });

  it('keeps the rest shut for development', () => {
    for (const url of [
      'https://169.254.169.254/',
      'http://metadata.google.internal/',
      'http://0.0.0.0/',
      'http://[::ffff:127.0.0.1]/',
      'http://127.1/',
      'http://me@localhost/',
      'http://[fe80::1]/',
      'http://localhost./',
    ])
      expect(judgeUrl(url, development).fault, url).to.be.a('string');
  });

  it('never passes a URL whose host the standard reads as an address that is not public', () => {
    const part = fc.oneof(
      fc.nat(255).map(String),
      fc.nat(255).map((n) => `0x${n.toString(16)}`),
      fc.nat(255).map((n) => `0${n.toString(8)}`),
      fc.nat(0xffffffff).map(String),
      fc.constantFrom('１２７', '⓪', '%31', '', 'a'),
    );
    const authority = fc
      .array(part, { minLength: 1, maxLength: 5 })
      .chain((parts) => fc.constantFrom('.', '。', '．').map((dot) => parts.join(dot)));
    const judge = addressJudge(false);
    fc.assert(
      fc.property(authority, (host) => {
        const { url } = judgeUrl(`https://${host}/`, production);
        if (!url) return;
        if (/^[\d.]+$/.test(url.hostname)) expect(judge(url.hostname)).to.equal(undefined);
        else expect(url.hostname).to.match(/\./);
      }),
      { numRuns: 2_000 },
    );
  });
});
