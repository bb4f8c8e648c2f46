import { lookup as systemLookup, Resolver } from 'node:dns/promises';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent, type AgentOptions } from 'node:https';
import { isIP, type LookupFunction, type Socket } from 'node:net';
import { callbackify } from 'node:util';
import { addressJudge, type JudgeAddress } from './address.ts';
import type { UrlRules } from './url.ts';

/** All addresses of a host name. Rejects when it has none. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** A connection that was refused because of where it leads. Trying again is of no use. */
export class GuardError extends Error {
  override readonly name = 'GuardError';
  readonly code = 'address_refused';
}

/** Connections that outlive a request: few, since endpoints are many and each is called seldom. */
const pool: AgentOptions = {
  keepAlive: true,
  maxSockets: 16,
  maxTotalSockets: 256,
  maxFreeSockets: 32,
  scheduling: 'lifo',
  timeout: 30_000,
};

/** For tests: where names are resolved, and whose certificates are trusted, instead of what this machine says. */
interface GuardOptions {
  readonly resolve?: Resolve;
  /** `address:port` */
  readonly nameServers?: readonly string[];
  readonly ca?: string;
}

/** The agents through which every request to an address that a user gave must go. */
export interface GuardedAgents {
  agentFor(url: URL): HttpAgent | HttpsAgent;
  close(): void;
}

/**
 * Agents that judge where each connection leads. A name is resolved once per connection, all its addresses are judged, one bad one
 * refuses the name (its answers may come in any order), and the socket connects to those very addresses: a name that answers
 * otherwise the next moment (rebinding) gains nothing. The address that a socket has in the end is judged again.
 */
export function guardedAgents(rules: UrlRules, options: GuardOptions = {}): GuardedAgents {
  const judge = addressJudge(rules.allowPrivate);
  const resolve = options.resolve ?? (rules.allowPrivate ? systemAddresses : publicAddresses(options.nameServers));
  const lookup = judgedLookup(judge, resolve);
  const http = guarded(new HttpAgent({ ...pool, lookup }), judge);
  const https = guarded(new HttpsAgent({ ...pool, lookup, ...(options.ca === undefined ? {} : { ca: options.ca }) }), judge);
  return {
    agentFor: (url) => (url.protocol === 'https:' ? https : http),
    close: () => {
      http.destroy();
      https.destroy();
    },
  };
}

/** A `lookup` for sockets that passes on judged addresses only. */
function judgedLookup(judge: JudgeAddress, resolve: Resolve): LookupFunction {
  const addressesOf = callbackify((host: string) => judgedAddresses(host, judge, resolve));
  return (host, options, callback) => {
    addressesOf(host, (error, addresses) => {
      if (error) return callback(error, []);
      const { family } = options;
      const wanted = family === 4 || family === 6 ? addresses.filter((address) => isIP(address) === family) : addresses;
      const [first] = wanted;
      if (first === undefined) return callback(new Error(`${host} has no address of the wanted family`), []);
      if (!options.all) return callback(null, first, isIP(first));
      callback(
        null,
        wanted.map((address) => ({ address, family: isIP(address) })),
      );
    });
  };
}

async function judgedAddresses(host: string, judge: JudgeAddress, resolve: Resolve): Promise<readonly string[]> {
  const addresses = await resolve(host);
  for (const address of addresses) {
    const fault = judge(address);
    if (fault) throw new GuardError(`${host} leads to ${address}, ${fault.kind}, which is not allowed`);
  }
  return addresses;
}

/**
 * Asks the name servers alone. The hosts file and the search domains of this machine are no part of the public internet; and other than
 * the system's call, a slow answer holds no thread that others need.
 */
function publicAddresses(nameServers?: readonly string[]): Resolve {
  return async (host) => {
    const resolver = new Resolver({ timeout: 1_500, tries: 2 });
    if (nameServers) resolver.setServers(nameServers);
    const answers = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const failed = answers.find((answer) => answer.status === 'rejected');
    if (addresses.length === 0) throw failed?.reason ?? new Error(`${host} has no address`);
    return addresses;
  };
}

async function systemAddresses(host: string): Promise<readonly string[]> {
  return (await systemLookup(host, { all: true })).map(({ address }) => address);
}

/** The agent, whose every socket is destroyed as soon as it turns out to have a peer that is refused, before anything is sent. */
function guarded<A extends HttpAgent>(agent: A, judge: JudgeAddress): A {
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, callback) => {
    const stream = connect(options, callback);
    const socket = stream as Socket | null | undefined;
    // Literal addresses meet no lookup.
    socket?.prependOnceListener('connect', () => {
      const address = socket.remoteAddress ?? '';
      const fault = judge(address);
      if (fault) socket.destroy(new GuardError(`${address} is ${fault.kind}, which is not allowed`));
    });
    return stream;
  };
  return agent;
}
