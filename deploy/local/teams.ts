import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { teamUser, type TeamUser } from '../../pipeline/consumers/team-user.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { lockData } from './lock.ts';
import { findProcesses, signalProcess } from './processes.ts';

/** So long another process may take to change the teams (ms), and how often it is looked whether it has. */
const lockMs = 10_000;
const retryMs = 20;

/** Where a local NATS server says which process it is. */
export function natsPidFile(directory: string): string {
  return join(directory, 'nats.pid');
}

/** The teams of the local NATS server in `<data>/nats`, its directory. */
export function localTeamUsers(directory: string): readonly TeamUser[] {
  const path = teamsFile(directory);
  if (!existsSync(path)) return [];
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as TeamUser[];
  } catch {
    throw new HeadwaterError('bad_teams', `${path} is damaged: it holds the NATS users of the teams`, {
      hint: 'restore it, or remove it and add the teams again',
    });
  }
}

/** Writes `teams.conf` of a local server anew; with `users` those are its teams from now on. Both files are readable by their owner only. */
export function writeTeamUsers(directory: string, users?: readonly TeamUser[]): void {
  if (users) replace(teamsFile(directory), `${JSON.stringify(users, null, 2)}\n`);
  const entries = (users ?? localTeamUsers(directory)).map((user) => teamUser(user));
  replace(join(directory, 'teams.conf'), `users = [\n${entries.join('')}]\n`);
}

/**
 * Changes the teams of a local server, one process at a time: what another one adds meanwhile is not lost.
 * @throws HeadwaterError `data_in_use` when another process holds them for more than ten seconds
 */
export async function changeTeamUsers(directory: string, change: (users: readonly TeamUser[]) => readonly TeamUser[]): Promise<void> {
  const release = await locked(directory);
  try {
    writeTeamUsers(directory, change(localTeamUsers(directory)));
  } finally {
    release();
  }
}

async function locked(directory: string): Promise<() => void> {
  const until = performance.now() + lockMs;
  for (;;) {
    try {
      return await lockData(directory);
    } catch (error) {
      if (!(error instanceof HeadwaterError && error.code === 'data_in_use') || performance.now() > until) throw error;
      await pause(retryMs);
    }
  }
}

/** Lets a running local server read its users again. False when none runs. */
export async function reloadNats(directory: string): Promise<boolean> {
  const running = await findProcesses('nats-server', natsPidFile(directory));
  for (const { pid } of running) signalProcess(pid, 'SIGHUP');
  return running.length > 0;
}

function teamsFile(directory: string): string {
  return join(directory, 'teams.json');
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
