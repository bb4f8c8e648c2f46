import { expect } from 'chai';
import { addressJudge } from '../../../../../processors/notify/channels/guard/address.ts';

const production = addressJudge(false);
const development = addressJudge(true);

/** Address → what a person is told. */
const refused: readonly (readonly [address: string, kind: RegExp])[] = [
  ['127.0.0.1', /loopback/],
  ['127.255.255.254', /loopback/],
  ['::1', /loopback/],
  ['10.0.0.1', /private/],
  ['10.255.255.255', /private/],
  ['172.16.0.1', /private/],
  ['172.31.255.255', /private/],
  ['192.168.0.1', /private/],
  ['fc00::1', /private/],
  ['fdff:ffff::1', /private/],
  ['100.64.0.1', /carrier/],
  ['100.127.255.255', /carrier/],
  ['169.254.1.1', /link-local/],
  ['fe80::1', /link-local/],
  ['fe80::1%eth0', /link-local/],
  ['febf::1', /link-local/],
  ['fec0::1', /reserved/],
  ['0.0.0.0', /unspecified/],
  ['0.1.2.3', /unspecified/],
  ['::', /unspecified/],
  ['224.0.0.1', /multicast/],
  ['239.255.255.255', /multicast/],
  ['ff02::1', /multicast/],
  ['255.255.255.255', /broadcast/],
  ['240.0.0.1', /reserved/],
  ['192.0.0.1', /reserved/],
  ['192.88.99.1', /reserved/],
  ['198.18.0.1', /benchmarks/],
  ['198.19.255.255', /benchmarks/],
  ['2001:2::1', /benchmarks/],
  ['192.0.2.1', /documentation/],
  ['198.51.100.1', /documentation/],
  ['203.0.113.1', /documentation/],
  ['2001:db8::1', /documentation/],
  ['3fff::1', /documentation/],
  ['100::1', /reserved/],
  ['4000::1', /reserved/],
  ['5f00::1', /reserved/],
  ['2001:20::1', /reserved/],
  // The cloud's own.
  ['169.254.169.254', /metadata/],
  ['169.254.170.2', /metadata/],
  ['fd00:ec2::254', /metadata/],
  ['fd20:ce::254', /metadata/],
  ['168.63.129.16', /metadata/],
  ['100.100.100.200', /metadata/],
  ['192.0.0.192', /metadata/],
  // IPv4 in IPv6, whichever address is inside: public ones can be had directly.
  ['::ffff:127.0.0.1', /inside/],
  ['::ffff:7f00:1', /inside/],
  ['::ffff:8.8.8.8', /inside/],
  ['::127.0.0.1', /inside/],
  ['::ffff:0:127.0.0.1', /inside/],
  ['64:ff9b::10.0.0.1', /inside/],
  ['64:ff9b:1::10.0.0.1', /inside/],
  ['2002:7f00:1::', /inside/],
  ['2002:808:808::1', /inside/],
  ['2001:0:4136:e378:8000:63bf:80ff:fffe', /inside/],
];

describe('the judge of addresses', () => {
  for (const [address, kind] of refused)
    it(`refuses ${address}`, () => {
      expect(production(address)?.kind).to.match(kind);
    });

  for (const address of [
    '8.8.8.8',
    '1.1.1.1',
    '93.184.216.34',
    '100.63.255.255',
    '172.32.0.1',
    '168.63.129.17',
    '2606:4700::1111',
    '2a00:1450:4001:80b::200e',
  ])
    it(`lets ${address} pass`, () => {
      expect(production(address)).to.equal(undefined);
    });

  for (const text of ['', 'localhost', '127.1', '0x7f.0.0.1', '0177.0.0.1', '2130706433', '1.2.3.4.5', '8.8.8.8 ', '[::1]'])
    it(`takes ${JSON.stringify(text)} for no address`, () => {
      expect(production(text)?.kind).to.equal('no IP address');
    });

  it('opens loopback and private addresses for development, and nothing else', () => {
    for (const [address, kind] of refused) {
      const opens = /loopback|private/.test(String(kind)) || /carrier/.test(String(kind));
      expect(development(address) === undefined, address).to.equal(opens);
      expect(production(address)?.open, address).to.equal(opens);
    }
  });
});
