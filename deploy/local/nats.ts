import { copyFileSync, existsSync, mkdirSync, renameSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { Binary } from './programs.ts';
import { natsUsers, type NatsUser } from './secrets.ts';
import type { ServerTrace } from './orphans.ts';
import { startServer, type Server, type ServerSpec } from './server.ts';
import { natsPidFile, writeTeamUsers } from './teams.ts';

export interface NatsOptions {
  readonly binary: Binary;
  /** `nats.conf` of the project. */
  readonly configuration: string;
  readonly directory: string;
  readonly logFile: string;
  readonly port: number;
  readonly passwords: Readonly<Record<NatsUser, string>>;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** One URL a user, with its password. */
export type NatsUrls = Readonly<Record<NatsUser, string>>;

/** Starts the local NATS server with the project's own configuration. */
export async function startNats(options: NatsOptions): Promise<Server & { urls: NatsUrls }> {
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  // Beside its copy, the configuration finds the teams of this data directory.
  copyFileSync(options.configuration, configurationIn(options.directory));
  writeTeamUsers(options.directory);
  adoptStreams(options.directory);
  const server = await startServer(specOf(options), options.port, options.log, options.signal);
  const url = (user: NatsUser): string => `nats://${user}:${options.passwords[user]}@127.0.0.1:${server.port}`;
  return Object.assign(server, {
    urls: { operator: url('operator'), capture: url('capture'), processor: url('processor'), gateway: url('gateway') },
  });
}

function configurationIn(directory: string): string {
  return join(directory, 'nats.conf');
}

/** Streams of before there were accounts belong to the account of the log. */
function adoptStreams(directory: string): void {
  const [before, now] = [join(directory, 'jetstream', '$G'), join(directory, 'jetstream', 'HEADWATER')];
  if (existsSync(before) && !existsSync(now)) renameSync(before, now);
}

/** What the server's processes on this directory are known by. */
export function natsTrace(directory: string): ServerTrace {
  return { label: 'NATS', program: 'nats-server', marker: natsPidFile(directory), stopSignal: 'SIGTERM', forceSignal: 'SIGKILL' };
}

function specOf({ binary, directory, logFile, passwords }: NatsOptions): ServerSpec {
  const pidFile = natsPidFile(directory);
  return {
    ...natsTrace(directory),
    path: binary.path,
    logFile,
    launch: (port) => ({
      args: ['--config', configurationIn(directory), '--pid', pidFile],
      env: { ...binary.env, NATS_HOST: '127.0.0.1', NATS_PORT: String(port), NATS_STORE: directory, ...passwordVariables(passwords) },
    }),
    probe: probeNats,
  };
}

function passwordVariables(passwords: Readonly<Record<NatsUser, string>>): Record<string, string> {
  return Object.fromEntries(natsUsers.map((user) => [`NATS_${user.toUpperCase()}_PASSWORD`, passwords[user]]));
}

/** A NATS server greets with an INFO line. It opens its port only after JetStream has recovered its streams. */
function probeNats(port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, signal });
    let greeting = '';
    const finish = (error?: Error): void => {
      socket.destroy();
      if (error) reject(error);
      else resolve();
    };
    socket.setEncoding('utf8');
    socket.on('error', (error) => finish(error));
    socket.on('close', () => finish(new Error('it closed the connection')));
    socket.on('data', (text: string) => {
      greeting += text;
      const line = /^INFO (\{.*\})/.exec(greeting)?.[1];
      if (line === undefined) return;
      const info = JSON.parse(line) as { jetstream?: boolean };
      finish(info.jetstream === true ? undefined : new Error('JetStream is not ready'));
    });
  });
}
