import { lstatSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { exec } from './exec.ts';

/** A system account that a server runs as. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * The account PostgreSQL runs as when we are root, since it refuses to run as root: `postgres`, else `nobody`.
 * Undefined when we are not root: then everything runs as ourselves.
 */
export async function serverAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    const ids = await Promise.all([exec('id', ['-u', name]), exec('id', ['-g', name])]).catch(() => undefined);
    if (ids === undefined) continue;
    return { name, uid: Number(ids[0].stdout), gid: Number(ids[1].stdout) };
  }
  throw new HeadwaterError('no_account', 'PostgreSQL refuses to run as root, and there is no account "postgres" or "nobody" to run it as', {
    hint: 'run as an ordinary user, or create an account named postgres',
  });
}

/** Whether the account can reach a path: every directory above it may be entered. */
export function canReach(account: Account, path: string): boolean {
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    if (!mayEnter(account, directory)) return false;
    if (directory === dirname(directory)) return true;
  }
}

function mayEnter(account: Account, directory: string): boolean {
  try {
    lstatSync(directory);
    const { uid, gid, mode } = statSync(directory);
    const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    return (mode & bit) !== 0;
  } catch {
    return false;
  }
}
