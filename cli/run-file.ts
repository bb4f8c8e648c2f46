import { readFile, rm, writeFile, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadwaterError, messageOf, usage } from '../pipeline/runtime/errors.ts';

/** What a running `headwater up` says of itself in `<data>/run.json`, and on stdout with `--json`. */
export interface RunFile {
  /** `http://host:port` */
  readonly gateway: string;
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly redisUrl: string;
  /** An API key with the scopes read, alerts and admin. */
  readonly key: string;
}

const fields = ['gateway', 'databaseUrl', 'natsUrl', 'redisUrl', 'key'] as const;

export function runFilePath(data: string): string {
  return join(data, 'run.json');
}

/** Readable by its owner only: it holds passwords and a key. Replaced in one step, so that no reader finds half of it. */
export async function writeRunFile(data: string, run: RunFile): Promise<void> {
  await mkdir(data, { recursive: true });
  const path = runFilePath(data);
  await writeFile(`${path}.new`, `${JSON.stringify(run)}\n`, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

export async function removeRunFile(data: string): Promise<void> {
  await rm(runFilePath(data), { force: true });
}

/** Undefined when nothing runs there. */
export async function readRunFile(data: string): Promise<RunFile | undefined> {
  const path = runFilePath(data);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code === 'ENOTDIR')
      throw usage('bad_data', `${data} is no directory`, 'name the one of a running headwater with --data or HEADWATER_DATA');
    throw new HeadwaterError('run_file', `${path} cannot be read: ${messageOf(error)}`, {
      hint: 'run this as the user who started headwater, or set DATABASE_URL, NATS_URL and REDIS_URL',
    });
  }
  const parsed = parse(text);
  if (!parsed)
    throw new HeadwaterError('run_file', `${path} is not what \`headwater up\` writes`, { hint: 'delete it, and start headwater again' });
  return parsed;
}

function parse(text: string): RunFile | undefined {
  try {
    const value = JSON.parse(text) as Partial<Record<string, unknown>> | null;
    return value && fields.every((field) => typeof value[field] === 'string') ? (value as unknown as RunFile) : undefined;
  } catch {
    return undefined;
  }
}
