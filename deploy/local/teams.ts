import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { teamUser, type TeamUser } from '../../pipeline/consumers/team-user.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { findProcesses, signalProcess } from './processes.ts';

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
