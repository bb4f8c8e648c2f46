import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { NatsConnection } from '../../pipeline/clients/nats.ts';
import type { Checkpoint } from '../../pipeline/replay/checkpoint.ts';
import { CountTarget } from '../../pipeline/replay/count-target.ts';
import { FileTarget } from '../../pipeline/replay/file-target.ts';
import { HttpTarget } from '../../pipeline/replay/http-target.ts';
import { SubjectTarget } from '../../pipeline/replay/subject-target.ts';
import { nothingSettled, type ReplayTarget } from '../../pipeline/replay/target.ts';
import { messageOf, usage } from '../../pipeline/runtime/errors.ts';
import type { ReplayOptions } from './request.ts';

export interface TargetParts {
  readonly options: ReplayOptions;
  readonly connection: NatsConnection;
  readonly run: string;
  readonly kept: Checkpoint | undefined;
  /** Told of what is tried again, and of what a person should know about the target. */
  readonly say: (line: string) => void;
}

const defaultGiveUpMs = 15 * 60_000;
const defaultBatch = 500;

/** Opens where the events go. */
export async function openTarget({ options, connection, run, kept, say }: TargetParts): Promise<ReplayTarget> {
  if (options.dryRun) return new CountTarget();
  const before = kept?.settled ?? nothingSettled;
  const patienceMs = options.giveUp ?? defaultGiveUpMs;
  const onRetry = (reason: string, inMs: number): void => say(`not taken (${reason}), trying again in ${(inMs / 1_000).toFixed(1)} s`);
  if (options.toFile !== undefined) return FileTarget.open(resolve(options.toFile), kept?.settled);
  if (options.toSubject !== undefined) {
    const target = await SubjectTarget.open(connection, { subject: options.toSubject, run, patienceMs, onRetry }, before);
    const keeps =
      target.stream === undefined
        ? 'no stream listens: only who subscribes now gets them, and nothing is kept'
        : `kept by stream ${target.stream}`;
    say(`to subject ${options.toSubject}, ${keeps}`);
    return target;
  }
  const { httpSender } = await import('./http-send.ts');
  const { send, close } = httpSender(options.toUrl!, await secretsIn(options.secretFile));
  const batch = options.batch ?? Math.max(1, Math.min(defaultBatch, options.rate ?? Infinity));
  const target = new HttpTarget({ send, run, batch, patienceMs, onRetry }, before);
  return {
    write: (events, signal) => target.write(events, signal),
    settle: (end, signal) => target.settle(end, signal),
    close: () => Promise.resolve(close()),
  };
}

/** A file that is there is somebody's. */
export function requireFreeFile({ toFile, overwrite, resume, dryRun }: ReplayOptions): void {
  if (toFile === undefined || overwrite || resume || dryRun || !existsSync(toFile)) return;
  throw usage('file_exists', `${toFile} is there already`, 'name another file, or give --overwrite to replace it');
}

/** One secret a line: with two, both sign, while a receiver changes from one to the other. */
async function secretsIn(path: string | undefined): Promise<readonly string[]> {
  if (path === undefined) return [];
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw usage(
      'bad_secret',
      `the secret file ${path} cannot be read: ${messageOf(error)}`,
      '--secret-file names a file that is there and that you may read, with a whsec_… a line',
    );
  });
  const lines = text.split('\n').map((line) => line.trim());
  const secrets = lines.filter((line) => line !== '' && !line.startsWith('#'));
  if (secrets.length === 0)
    throw usage('bad_secret', `${path} holds no secret`, 'a line each: whsec_ followed by 24 to 64 bytes in base64');
  return secrets;
}
