import { createHash, randomBytes } from 'node:crypto';
import type { PgPool } from '../clients/postgres.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import type { ApiKey, KeyLimits, KeyStore } from './key-store.ts';

/** What a new key is to be. */
export interface NewKey {
  readonly name: string;
  /** Whose key it is: an id of the application's own. */
  readonly owner: string;
  /** `read`, `read:<channel>`, `alerts`, `admin`. */
  readonly scopes: readonly string[];
  readonly limits?: KeyLimits;
  readonly expiresAt?: Date;
}

/** A key as an operator sees it. The key itself is not kept anywhere. */
export interface KeyInfo {
  readonly id: string;
  readonly name: string;
  readonly owner: string;
  readonly scopes: readonly string[];
  readonly limits: KeyLimits;
  readonly createdAt: Date;
  readonly expiresAt: Date | undefined;
  readonly revokedAt: Date | undefined;
}

interface KeyRow {
  readonly id: string;
  readonly name: string;
  readonly owner: string;
  readonly scopes: string[];
  readonly limits: KeyLimits;
  readonly created_at: Date;
  readonly expires_at: Date | null;
  readonly revoked_at: Date | null;
}

const columns = 'id, name, owner, scopes, limits, created_at, expires_at, revoked_at';

/** `hw_` and 32 random bytes in base64url: 46 characters. */
export function generateKey(): string {
  return `hw_${randomBytes(32).toString('base64url')}`;
}

/** SHA-256 of the key's UTF-8 text, 64 lower-case hex digits. The key is random enough that a plain hash gives nothing away. */
export function hashKey(key: string): string {
  return createHash('sha256').update(key, 'utf8').digest('hex');
}

/** Is this a scope? */
export function isScope(scope: string): boolean {
  return /^(read|alerts|admin|read:[^\s,]{1,200})$/.test(scope);
}

/** Looks keys up in `headwater.api_keys`. */
export function postgresKeys(pool: PgPool): KeyStore {
  return {
    async find(sha256Hex) {
      const { rows } = await pool.query<KeyRow>(`SELECT ${columns} FROM headwater.api_keys WHERE hash = $1`, [sha256Hex]);
      return rows[0] && toApiKey(rows[0]);
    },
  };
}

/** Makes a key and returns it with what is kept of it: the only moment the key can be seen. */
export async function createKey(pool: PgPool, wanted: NewKey): Promise<{ key: string; info: KeyInfo }> {
  const key = generateKey();
  return { key, info: await insert(pool, key, wanted, '') };
}

/**
 * Makes sure that this very key is there and valid, so that a key kept elsewhere stays the same over restarts and over
 * a database that was set up anew. A key that an operator revoked stays revoked.
 * @throws HeadwaterError `key_revoked`
 */
export async function ensureKey(pool: PgPool, key: string, wanted: NewKey): Promise<KeyInfo> {
  const info = await insert(
    pool,
    key,
    wanted,
    `ON CONFLICT (hash) DO UPDATE SET name = excluded.name, owner = excluded.owner, scopes = excluded.scopes, limits = excluded.limits, expires_at = excluded.expires_at
     WHERE (api_keys.name, api_keys.owner, api_keys.scopes, api_keys.limits, api_keys.expires_at)
       IS DISTINCT FROM (excluded.name, excluded.owner, excluded.scopes, excluded.limits, excluded.expires_at)`,
  );
  if (info.revokedAt)
    throw new HeadwaterError('key_revoked', `the key ${info.name} was revoked at ${info.revokedAt.toISOString()}`, {
      hint: 'make another one',
    });
  return info;
}

/** All keys, the newest first. */
export async function listKeys(pool: PgPool): Promise<KeyInfo[]> {
  const { rows } = await pool.query<KeyRow>(`SELECT ${columns} FROM headwater.api_keys ORDER BY created_at DESC, id`);
  return rows.map(toInfo);
}

/**
 * Revokes a key by its id or, if only one key that is not revoked has it, its name. Revoking twice changes nothing.
 * @throws HeadwaterError `unknown_key`, `ambiguous_key` (usage)
 */
export async function revokeKey(pool: PgPool, idOrName: string): Promise<KeyInfo> {
  const { rows } = await pool.query<KeyRow>(
    `SELECT ${columns} FROM headwater.api_keys WHERE id::text = lower($1) OR name = $1 ORDER BY revoked_at IS NOT NULL, created_at`,
    [idOrName],
  );
  const byId = rows.find(({ id }) => id === idOrName.toLowerCase());
  const valid = rows.filter((row) => row.revoked_at === null);
  if (!byId && valid.length > 1) {
    throw new HeadwaterError('ambiguous_key', `${valid.length} keys are named ${idOrName}: ${valid.map(({ id }) => id).join(', ')}`, {
      reaction: 'usage',
      hint: 'give the id',
    });
  }
  const found = byId ?? rows[0];
  if (!found)
    throw new HeadwaterError('unknown_key', `no key has the id or name ${idOrName}`, {
      reaction: 'usage',
      hint: '`headwater keys list` shows them all',
    });
  const revoked = await pool.query<KeyRow>(
    `UPDATE headwater.api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING ${columns}`,
    [found.id],
  );
  return toInfo(revoked.rows[0] ?? found);
}

async function insert(pool: PgPool, key: string, wanted: NewKey, onConflict: string): Promise<KeyInfo> {
  const hash = hashKey(key);
  const values = [wanted.name, wanted.owner, hash, wanted.scopes, JSON.stringify(wanted.limits ?? {}), wanted.expiresAt ?? null];
  const { rows } = await pool.query<KeyRow>(
    `INSERT INTO headwater.api_keys (name, owner, hash, scopes, limits, expires_at) VALUES ($1, $2, $3, $4, $5, $6) ${onConflict} RETURNING ${columns}`,
    values,
  );
  // An upsert that has nothing to change returns nothing, and writes nothing to the WAL.
  const row = rows[0] ?? (await pool.query<KeyRow>(`SELECT ${columns} FROM headwater.api_keys WHERE hash = $1`, [hash])).rows[0];
  if (!row) throw new HeadwaterError('key_vanished', 'the key was deleted while it was being stored');
  return toInfo(row);
}

function toInfo(row: KeyRow): KeyInfo {
  const { id, name, owner, scopes, limits } = row;
  return {
    id,
    name,
    owner,
    scopes,
    limits,
    createdAt: row.created_at,
    expiresAt: row.expires_at ?? undefined,
    revokedAt: row.revoked_at ?? undefined,
  };
}

function toApiKey(row: KeyRow): ApiKey {
  const { id, owner, scopes, limits } = row;
  return {
    keyId: id,
    owner,
    scopes,
    limits,
    expiresAt: row.expires_at?.getTime(),
    ...(row.revoked_at ? { revokedAt: row.revoked_at.getTime() } : {}),
  };
}
