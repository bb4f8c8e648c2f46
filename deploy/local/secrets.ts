import { createECDH, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';

export const natsUsers = ['operator', 'capture', 'processor', 'gateway'] as const;
export type NatsUser = (typeof natsUsers)[number];

/** The passwords of the local servers and other secrets, made at the first start and kept. */
export interface Secrets {
  readonly postgres: string;
  readonly redis: string;
  readonly nats: Readonly<Record<NatsUser, string>>;
  /** Of web push: made once, since browsers subscribe for the public key. */
  readonly vapid: VapidKeys;
}

/** A P-256 key pair, base64url. */
export interface VapidKeys {
  readonly publicKey: string;
  readonly privateKey: string;
}

function vapidKeys(): VapidKeys {
  const pair = createECDH('prime256v1');
  const publicKey = pair.generateKeys().toString('base64url');
  // Without its leading zeros, as it comes.
  const privateKey = Buffer.concat([Buffer.alloc(32), pair.getPrivateKey()])
    .subarray(-32)
    .toString('base64url');
  return { publicKey, privateKey };
}

/**
 * Letters and digits, beginning with letters: it needs no escaping in a URL or a shell, and cannot be taken for a number
 * or a size by the NATS server, which parses what it reads from the environment.
 */
function password(): string {
  return `hw${randomBytes(16).toString('hex')}`;
}

/** Have local servers ever been started on this data? */
export function secretsExist(data: string): boolean {
  return existsSync(join(data, 'secrets.json'));
}

/** Reads `<data>/secrets.json` (mode 0600), or makes it. */
export function loadSecrets(data: string): Secrets {
  const path = join(data, 'secrets.json');
  const found = read(path);
  // One of a version that had no web push has no keys for it.
  if (found?.vapid !== undefined) return { ...found, vapid: found.vapid };
  const secrets: Secrets = {
    postgres: password(),
    redis: password(),
    nats: { operator: password(), capture: password(), processor: password(), gateway: password() },
    ...found,
    vapid: vapidKeys(),
  };
  writeFileSync(`${path}.new`, `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
  return secrets;
}

function read(path: string): (Omit<Secrets, 'vapid'> & { readonly vapid?: VapidKeys }) | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  chmodSync(path, 0o600);
  try {
    const value = JSON.parse(text) as Secrets;
    if (
      [value.postgres, value.redis, ...natsUsers.map((user) => value.nats[user])].every((word) => typeof word === 'string' && word !== '')
    )
      return value;
  } catch {
    // Said below.
  }
  throw new HeadwaterError('bad_secrets', `${path} is damaged: it holds the passwords of the local servers`, {
    hint: 'restore it, or remove the whole data directory to begin anew',
  });
}
