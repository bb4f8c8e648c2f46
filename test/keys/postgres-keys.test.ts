import { expect } from 'chai';
import { migrate } from '../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import {
  createKey,
  ensureKey,
  generateKey,
  hashKey,
  isScope,
  listKeys,
  postgresKeys,
  revokeKey,
} from '../../pipeline/keys/postgres-keys.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { freshDatabase, type FreshDatabase } from '../support/servers.ts';

async function failure(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('API keys in Postgres', () => {
  const log = silentLogger();
  let database: FreshDatabase;
  let pool: PgPool;

  before(async function () {
    this.timeout(120_000);
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log });
    pool = createPool(database.url, 'test', log);
  });

  after(async () => {
    await pool.end();
    await database.drop();
  });

  it('a created key is found by its hash, with all that was said of it, and nowhere stored itself', async () => {
    const expiresAt = new Date('2030-01-02T03:04:05.678Z');
    const { key, info } = await createKey(pool, {
      name: 'bot',
      owner: 'alice',
      scopes: ['read:prices', 'alerts'],
      limits: { connections: 3 },
      expiresAt,
    });
    expect(key).to.match(/^hw_[A-Za-z0-9_-]{43}$/);
    expect(await postgresKeys(pool).find(hashKey(key))).to.deep.equal({
      keyId: info.id,
      owner: 'alice',
      scopes: ['read:prices', 'alerts'],
      limits: { connections: 3 },
      expiresAt: expiresAt.getTime(),
    });
    const { rows } = await pool.query<{ text: string }>('SELECT api_keys::text AS text FROM headwater.api_keys');
    expect(rows.map(({ text }) => text).join()).to.not.include(key.slice(3));
    expect(await postgresKeys(pool).find(hashKey(`${key}x`))).to.equal(undefined);
  });

  it('hashes as SHA-256 does (FIPS 180-2, "abc")', () => {
    expect(hashKey('abc')).to.equal('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });

  it('a revoked key is still found, and says since when; revoking again changes nothing', async () => {
    const { key, info } = await createKey(pool, { name: 'gone', owner: 'bob', scopes: ['read'] });
    const first = await revokeKey(pool, 'gone');
    const again = await revokeKey(pool, info.id.toUpperCase());
    expect(again.revokedAt).to.deep.equal(first.revokedAt);
    expect((await postgresKeys(pool).find(hashKey(key)))?.revokedAt).to.equal(first.revokedAt?.getTime());
  });

  it('a name that several valid keys have revokes none of them', async () => {
    for (let i = 0; i < 2; i++) await createKey(pool, { name: 'twin', owner: 'bob', scopes: ['read'] });
    expect(await failure(revokeKey(pool, 'twin'))).to.include({ code: 'ambiguous_key', reaction: 'usage' });
    expect((await listKeys(pool)).filter((key) => key.name === 'twin' && key.revokedAt === undefined)).to.have.length(2);
  });

  it('ensureKey keeps the same key, writes only what differs, and does not bring a revoked one back', async () => {
    const key = generateKey();
    const wanted = { name: 'operator', owner: 'operator', scopes: ['read', 'admin'] };
    const first = await ensureKey(pool, key, wanted);
    const version = async (): Promise<unknown> =>
      (await pool.query<{ xmin: string }>('SELECT xmin::text FROM headwater.api_keys WHERE id = $1', [first.id])).rows[0]?.xmin;
    const before = await version();
    expect((await ensureKey(pool, key, wanted)).id).to.equal(first.id);
    expect(await version()).to.equal(before);
    expect((await ensureKey(pool, key, { ...wanted, scopes: ['read'] })).scopes).to.deep.equal(['read']);
    await revokeKey(pool, first.id);
    expect(await failure(ensureKey(pool, key, wanted))).to.include({ code: 'key_revoked' });
  });

  it('knows a scope from what is none', () => {
    expect(['read', 'alerts', 'admin', 'read:prices', 'read:public.t'].every(isScope)).to.equal(true);
    expect(['', 'write', 'read:', 'read:a b', 'admin:x', 'read:a,b'].some(isScope)).to.equal(false);
  });
});
