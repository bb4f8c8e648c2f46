import ipaddr from 'ipaddr.js';

/** Networks of one kind. `open`: reachable when private webhooks are allowed. */
interface Kind {
  readonly name: string;
  readonly open: boolean;
  readonly networks: readonly string[];
}

/**
 * Everything that is not the public internet, most particular first: the special-purpose registries of IANA (RFC 6890 and what has been
 * added to them since) and the addresses at which clouds tell machines their secrets. Those stay shut also in development.
 */
const kinds: readonly Kind[] = [
  {
    name: 'a cloud metadata address',
    open: false,
    networks: [
      '169.254.169.254/32', // AWS, Azure, Google Cloud, DigitalOcean and most others
      '169.254.170.2/32', // AWS ECS
      '169.254.170.23/32', // AWS EKS
      '169.254.42.42/32', // Scaleway
      '168.63.129.16/32', // Azure's wire server: a public address that leads to the host
      '100.100.100.200/32', // Alibaba Cloud
      '192.0.0.192/32', // Oracle Cloud
      'fd00:ec2::/32', // AWS
      'fd20:ce::254/128', // Google Cloud
      'fd00:42::42/128', // Scaleway
      'fd00:c1::a9fe:a9fe/128', // Oracle Cloud
    ],
  },
  { name: 'a loopback address', open: true, networks: ['127.0.0.0/8', '::1/128'] },
  { name: 'a private address', open: true, networks: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'] },
  { name: 'a carrier’s private address', open: true, networks: ['100.64.0.0/10'] },
  { name: 'a link-local address', open: false, networks: ['169.254.0.0/16', 'fe80::/10'] },
  { name: 'an unspecified address', open: false, networks: ['0.0.0.0/8', '::/128'] },
  { name: 'a multicast address', open: false, networks: ['224.0.0.0/4', 'ff00::/8'] },
  { name: 'the broadcast address', open: false, networks: ['255.255.255.255/32'] },
  {
    name: 'an IPv4 address inside an IPv6 address',
    open: false,
    networks: [
      '::/96', // compatible (RFC 4291)
      '::ffff:0:0/96', // mapped (RFC 4291)
      '::ffff:0:0:0/96', // translated (RFC 2765)
      '64:ff9b::/96', // NAT64 (RFC 6052)
      '64:ff9b:1::/48', // NAT64 for local use (RFC 8215)
      '2002::/16', // 6to4 (RFC 3056)
      '2001::/32', // Teredo (RFC 4380)
    ],
  },
  {
    name: 'an address for documentation',
    open: false,
    networks: ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32', '3fff::/20'],
  },
  { name: 'an address for benchmarks', open: false, networks: ['198.18.0.0/15', '2001:2::/48'] },
  {
    name: 'a reserved address',
    open: false,
    networks: [
      '192.0.0.0/24', // protocol assignments
      '192.31.196.0/24', // AS112
      '192.52.193.0/24', // AMT
      '192.88.99.0/24', // 6to4 relays
      '192.175.48.0/24', // AS112
      '240.0.0.0/4',
      '2001::/23', // protocol assignments
      '2620:4f:8000::/48', // AS112
    ],
  },
];

interface Network {
  readonly kind: Kind;
  readonly range: [ipaddr.IPv4 | ipaddr.IPv6, number];
}

/** What stands between an address and a request to it. */
export interface AddressFault {
  /** The kind of address, with its article: `a loopback address`. */
  readonly kind: string;
  /** Whether allowing private webhooks would open it. */
  readonly open: boolean;
}

export type JudgeAddress = (address: string) => AddressFault | undefined;

/**
 * A judge of IP addresses in their usual text form, as sockets and resolvers give them. It knows what is public rather than what is not:
 * an IPv6 address outside 2000::/3, and a text that is no address, are faults too.
 * @param allowPrivate lets loopback, private and carriers' private addresses pass, for development
 */
export function addressJudge(allowPrivate: boolean): JudgeAddress {
  const networks: readonly Network[] = kinds.flatMap((kind) =>
    kind.networks.map((network) => ({ kind, range: ipaddr.parseCIDR(network) })),
  );
  const global = ipaddr.IPv6.parseCIDR('2000::/3');
  return (text) => {
    // The library also takes octal, hexadecimal and short forms; nothing that comes from a socket or a resolver looks like that.
    const usual = text.includes(':') ? ipaddr.IPv6.isValid(text) : ipaddr.IPv4.isValidFourPartDecimal(text);
    if (!usual) return { kind: 'no IP address', open: false };
    const address = ipaddr.parse(text);
    const found = networks.find(({ range }) => range[0].kind() === address.kind() && address.match(range));
    if (found) return found.kind.open && allowPrivate ? undefined : { kind: found.kind.name, open: found.kind.open };
    if (address.kind() === 'ipv6' && !address.match(global)) return { kind: 'a reserved address', open: false };
    return undefined;
  };
}
