import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';

/**
 * Below the ports that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere): there a client that
 * retries a stopped server can be given the server's port for its own end, and would connect to itself.
 */
const lowest = 10_000;
const highest = 19_999;

export type PortName = 'postgres' | 'nats' | 'redis';
export type Ports = Readonly<Record<PortName, number>>;

/** Three free loopback ports, the same as last time where they are still free. */
export async function choosePorts(data: string): Promise<Ports> {
  const path = join(data, 'ports.json');
  const last = readPorts(path);
  const held: Server[] = [];
  try {
    // All are held until all are chosen: so they differ.
    const ports = { postgres: await hold(held, last.postgres), nats: await hold(held, last.nats), redis: await hold(held, last.redis) };
    writeFileSync(path, `${JSON.stringify(ports)}\n`);
    return ports;
  } finally {
    await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))));
  }
}

/** Another free port, for a server whose port was taken between choosing and listening. */
export async function choosePort(): Promise<number> {
  const held: Server[] = [];
  const port = await hold(held, undefined);
  await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))));
  return port;
}

async function hold(held: Server[], preferred: number | undefined): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = attempt === 0 && preferred !== undefined ? preferred : lowest + Math.floor(Math.random() * (highest - lowest + 1));
    const server = await tryListen(port);
    if (server === undefined) continue;
    held.push(server);
    return port;
  }
  throw new Error(`no free port between ${lowest} and ${highest} on 127.0.0.1`);
}

function tryListen(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => resolve(server));
  });
}

function readPorts(path: string): Partial<Ports> {
  try {
    const value = JSON.parse(readFileSync(path, 'utf8')) as Partial<Record<PortName, unknown>>;
    const names: readonly PortName[] = ['postgres', 'nats', 'redis'];
    return Object.fromEntries(names.filter((name) => Number.isInteger(value[name])).map((name) => [name, value[name]]));
  } catch {
    return {};
  }
}
