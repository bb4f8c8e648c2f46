import { expect } from 'chai';
import { lookup } from 'node:dns/promises';
import { guardedAgents, GuardError, type Resolve } from '../../../../../processors/notify/channels/guard/connect.ts';
import { post, type HttpAnswer } from '../../../../../processors/notify/channels/http-post.ts';
import { startNameServer } from '../support/name-server.ts';
import { startReceiver, type Receiver } from '../../support/receiver.ts';
import { certificate } from '../support/certificate.ts';

describe('guarded connections', () => {
  let receiver: Receiver;
  const cleanups: (() => void)[] = [];

  beforeEach(async () => {
    receiver = await startReceiver();
  });
  afterEach(async () => {
    for (const clean of cleanups.splice(0)) clean();
    await receiver.close();
  });

  function agents(options: {
    allowPrivate: boolean;
    resolve?: Resolve;
    nameServers?: string[];
    ca?: string;
  }): ReturnType<typeof guardedAgents> {
    const made = guardedAgents({ allowPrivate: options.allowPrivate }, options);
    cleanups.push(() => made.close());
    return made;
  }

  function call(made: ReturnType<typeof guardedAgents>, url: string): Promise<HttpAnswer> {
    return post(made, { url: new URL(url), headers: {}, body: Buffer.from('x') }, AbortSignal.timeout(5_000));
  }

  async function refusal(made: ReturnType<typeof guardedAgents>, url: string): Promise<string> {
    const error = await call(made, url).catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(GuardError);
    expect(receiver.bytes).to.equal(0);
    return (error as Error).message;
  }

  it('refuses a public name that leads to a private address', async () => {
    const made = agents({ allowPrivate: false, resolve: () => Promise.resolve(['127.0.0.1']) });
    expect(await refusal(made, `http://hooks.example.com:${receiver.port}/`)).to.equal(
      'hooks.example.com leads to 127.0.0.1, a loopback address, which is not allowed',
    );
    expect(receiver.connections).to.equal(0);
  });

  it('refuses a name with one private address among public ones, wherever it stands', async () => {
    for (const addresses of [
      ['8.8.8.8', '127.0.0.1'],
      ['127.0.0.1', '8.8.8.8'],
      ['2606:4700::1111', '::1'],
      ['8.8.8.8', '::ffff:127.0.0.1'],
    ]) {
      const made = agents({ allowPrivate: false, resolve: () => Promise.resolve(addresses) });
      expect(await refusal(made, `http://mixed.example.com:${receiver.port}/`)).to.match(/^mixed\.example\.com leads to /);
    }
    expect(receiver.connections).to.equal(0);
  });

  it('asks once a connection, and connects to the very address it has judged: rebinding gains nothing', async () => {
    let asked = 0;
    // Private after the first answer, as a rebinding name server does it; "public" is here what the judge lets pass.
    const resolve: Resolve = () => Promise.resolve(asked++ === 0 ? ['127.0.0.1'] : ['169.254.169.254']);
    const made = agents({ allowPrivate: true, resolve });
    expect((await call(made, `http://rebind.example.com:${receiver.port}/a`)).status).to.equal(200);
    expect(asked).to.equal(1);
    // The connection is kept, so the name is not asked again; a new connection is judged anew.
    expect((await call(made, `http://rebind.example.com:${receiver.port}/b`)).status).to.equal(200);
    expect(asked).to.equal(1);
    expect(receiver.connections).to.equal(1);
    const error = await call(made, `http://rebind.example.com:${receiver.port + 1}/`).catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(GuardError);
    expect(asked).to.equal(2);
  });

  it('judges the peer of a socket again, so an address that met no lookup gets nothing sent', async () => {
    const made = agents({ allowPrivate: false });
    expect(await refusal(made, `http://127.0.0.1:${receiver.port}/`)).to.equal('127.0.0.1 is a loopback address, which is not allowed');
    expect(receiver.received).to.deep.equal([]);
  });

  it('judges the peer before TLS begins', async () => {
    const secure = await startReceiver({ tls: true });
    cleanups.push(() => void secure.close());
    const error = await call(agents({ allowPrivate: false, ca: certificate }), `https://127.0.0.1:${secure.port}/`).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).to.be.instanceOf(GuardError);
    expect(secure.bytes).to.equal(0);
  });

  it('speaks TLS to a name, and checks the certificate for that name', async () => {
    const secure = await startReceiver({ tls: true });
    cleanups.push(() => void secure.close());
    const resolve: Resolve = () => Promise.resolve(['127.0.0.1']);
    const made = agents({ allowPrivate: true, resolve, ca: certificate });
    expect((await call(made, `https://hooks.example.com:${secure.port}/`)).status).to.equal(200);
    const error = await call(made, `https://other.example.com:${secure.port}/`).catch((thrown: unknown) => thrown);
    expect((error as NodeJS.ErrnoException).code).to.equal('ERR_TLS_CERT_ALTNAME_INVALID');
  });

  it('for development, resolves names of this machine', async () => {
    const [first] = await lookup('localhost', { all: true });
    const local = await startReceiver({ host: first!.address });
    cleanups.push(() => void local.close());
    expect((await call(agents({ allowPrivate: true }), `http://localhost:${local.port}/`)).status).to.equal(200);
  });

  it('in production, does not: what only this machine calls by that name is not on the internet', async () => {
    const error = await call(agents({ allowPrivate: false }), `http://localhost:${receiver.port}/`).catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(Error);
    expect(receiver.connections).to.equal(0);
  });

  it('in production, judges all that the name servers answer, over IPv4 and IPv6', async () => {
    const names = await startNameServer({
      'private.example.com': ['10.0.0.1'],
      'mixed.example.com': ['93.184.216.34', '192.168.0.1'],
      'six.example.com': ['93.184.216.34', '::1'],
      'mapped.example.com': ['::ffff:127.0.0.1'],
      'metadata.example.com': ['169.254.169.254'],
    });
    cleanups.push(() => names.close());
    const made = agents({ allowPrivate: false, nameServers: [names.address] });
    const said = [];
    for (const name of ['private', 'mixed', 'six', 'mapped', 'metadata'])
      said.push(await refusal(made, `http://${name}.example.com:${receiver.port}/`));
    expect(said.map((message) => / leads to (.*), which/.exec(message)?.[1])).to.deep.equal([
      '10.0.0.1, a private address',
      '192.168.0.1, a private address',
      '::1, a loopback address',
      '::ffff:127.0.0.1, an IPv4 address inside an IPv6 address',
      '169.254.169.254, a cloud metadata address',
    ]);
    const error = await call(made, `http://none.example.com:${receiver.port}/`).catch((thrown: unknown) => thrown);
    expect((error as NodeJS.ErrnoException).code).to.equal('ENOTFOUND');
  });
});
