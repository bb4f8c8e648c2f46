import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { Binary } from './programs.ts';
import type { ServerTrace } from './orphans.ts';
import { startServer, type Server, type ServerSpec } from './server.ts';

export interface RedisOptions {
  readonly binary: Binary;
  readonly directory: string;
  readonly logFile: string;
  readonly port: number;
  readonly password: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Starts the local Redis: append-only file, nothing evicted, a password. */
export async function startRedis(options: RedisOptions): Promise<Server & { url: string }> {
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  const server = await startServer(specOf(options), options.port, options.log, options.signal);
  return Object.assign(server, { url: `redis://default:${options.password}@127.0.0.1:${server.port}` });
}

function configurationIn(directory: string): string {
  return join(directory, 'redis.conf');
}

/** What the server's processes on this directory are known by. */
export function redisTrace(directory: string): ServerTrace {
  return {
    label: 'Redis',
    program: 'redis-server',
    marker: configurationIn(directory),
    stopSignal: 'SIGTERM',
    forceSignal: 'SIGKILL',
  };
}

function specOf({ binary, directory, logFile, password }: RedisOptions): ServerSpec {
  const configuration = configurationIn(directory);
  return {
    ...redisTrace(directory),
    path: binary.path,
    logFile,
    launch: (port) => {
      // In a file, not on the command line, where other users of the machine could read the password.
      writeFileSync(configuration, redisConfiguration(directory, port, password), { mode: 0o600 });
      return { args: [configuration], env: { ...binary.env, LC_ALL: 'C' } };
    },
    probe: (port, signal) => probeRedis(port, password, signal),
  };
}

function redisConfiguration(directory: string, port: number, password: string): string {
  const lines = [
    'bind 127.0.0.1',
    'protected-mode yes',
    `port ${port}`,
    `requirepass ${password}`,
    `dir "${directory.replace(/["\\]/g, '\\$&')}"`,
    'daemonize no',
    'appendonly yes',
    'appendfsync everysec',
    // Rewriting the file takes a core for a second; at 64 MB, the default, a cache being filled would have it rewritten every few seconds.
    'auto-aof-rewrite-min-size 128mb',
    'save ""',
    'maxmemory-policy noeviction',
    // Keeps the command line as it was given: it tells which data the process serves.
    'set-proc-title no',
  ];
  return `${lines.join('\n')}\n`;
}

/** PING answers only after the append-only file has been loaded. */
function probeRedis(port: number, password: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, signal });
    let answer = '';
    const finish = (error?: Error): void => {
      socket.destroy();
      if (error) reject(error);
      else resolve();
    };
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    socket.on('error', (error) => finish(error));
    socket.on('close', () => finish(new Error('it closed the connection')));
    socket.on('data', (text: string) => {
      answer += text;
      if (answer.includes('+PONG')) finish();
      else if (/^-.*\r\n/m.test(answer)) finish(new Error(answer.trim()));
    });
  });
}
