import type { FastifyInstance } from 'fastify';
import { DatabaseError } from '../../../pipeline/clients/postgres.ts';
import { badBody, notFound, RequestFault } from '../../../pipeline/runtime/request-fault.ts';
import { isUuid, readQuery } from '../../../pipeline/runtime/request-query.ts';
import { suggestion } from '../../../schemas/nearest.ts';
import { judgeUrl } from '../../notify/channels/guard/url.ts';
import { judgePushKeys } from '../../notify/channels/push/encrypt.ts';
import { objectBody } from './json-body.ts';
import type { OwnedRows } from './owned-rows.ts';
import { pageOf, pageRequest, type Position } from './pages.ts';
import { isoTime } from './rule-resource.ts';
import { Where } from './where.ts';

export interface DeviceParts {
  readonly rows: OwnedRows;
  readonly allowPrivate: boolean;
  /** The public VAPID key, base64url; undefined while web push is not set up. */
  readonly pushKey: string | undefined;
}

interface DeviceRow extends Position {
  readonly endpoint: string;
  readonly label: string | null;
  readonly last_used_at: string | null;
}

interface Subscription {
  readonly endpoint: string;
  readonly p256dh: string;
  readonly auth: string;
  readonly label: string | null;
}

const columns = `id, endpoint, label, ${isoTime('created_at')} AS at, ${isoTime('last_used_at')} AS last_used_at`;
const longestLabel = 100;
const insufficientPrivilege = '42501';

/** `/v2/devices`: browsers that get web push, as they subscribe by themselves, and the key they subscribe with. */
export function deviceRoutes(app: FastifyInstance, { rows, allowPrivate, pushKey }: DeviceParts): void {
  app.post('/v2/devices', async (request, reply) => {
    readQuery(request);
    const { endpoint, p256dh, auth, label } = subscriptionOf(objectBody(request.body), allowPrivate);
    const { owner } = request.principal;
    const row = await rows.as(owner, async (statements) => {
      await statements.query('SELECT headwater.release_device($1, $2, $3)', [endpoint, p256dh, auth]);
      const [device] = await statements
        .query<DeviceRow & { made: boolean }>(
          `INSERT INTO headwater.user_devices (user_id, endpoint, p256dh, auth, label) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (endpoint) DO UPDATE SET p256dh = excluded.p256dh, auth = excluded.auth, label = coalesce(excluded.label, user_devices.label)
           RETURNING ${columns}, xmax = 0 AS made`,
          [owner, endpoint, p256dh, auth, label],
        )
        .catch(asConflict);
      return device!;
    });
    return reply
      .code(row.made ? 201 : 200)
      .header('Location', `/v2/devices/${row.id}`)
      .send(deviceResource(row));
  });

  app.get('/v2/devices', async (request, reply) => {
    const { owner } = request.principal;
    const page = pageRequest(readQuery(request, ['limit', 'cursor']), 'devices', owner);
    const where = new Where().equal('user_id', owner).after('created_at', '>', page.after);
    const found = await rows.as(owner, (statements) =>
      statements.query<DeviceRow>(
        `SELECT ${columns} FROM headwater.user_devices ${where.sql} ORDER BY created_at, id LIMIT ${page.limit + 1}`,
        where.values,
      ),
    );
    return reply.send(pageOf(page, found, deviceResource));
  });

  app.delete<{ Params: { id: string } }>('/v2/devices/:id', async (request, reply) => {
    readQuery(request);
    const { id } = request.params;
    const sql = 'DELETE FROM headwater.user_devices WHERE id = $1 AND user_id = $2 RETURNING id';
    const gone = isUuid(id)
      ? await rows.as(request.principal.owner, (statements) => statements.query(sql, [id, request.principal.owner]))
      : [];
    if (gone.length === 0) throw notFound('device');
    return reply.code(204).send();
  });

  app.get('/v2/push/key', (request, reply) => {
    readQuery(request);
    if (pushKey === undefined) throw new RequestFault('not_found', 'web push is not set up here');
    return reply.send({ publicKey: pushKey });
  });
}

/** With other keys than before it is not the browser that gave the endpoint: the policy hides the other user's row. */
function asConflict(error: unknown): never {
  if (error instanceof DatabaseError && error.code === insufficientPrivilege && /row-level security/.test(error.message))
    throw new RequestFault('conflict', 'this endpoint belongs to another user’s device: subscribe anew in the browser', 'endpoint');
  throw error;
}

/**
 * Reads a PushSubscription as browsers turn it into JSON (W3C Push API), with a `label` of ours. `expirationTime` is passed over.
 * @throws RequestFault with all faults
 */
function subscriptionOf(body: Readonly<Record<string, unknown>>, allowPrivate: boolean): Subscription {
  const { endpoint, label = null } = body;
  const keys = (typeof body['keys'] === 'object' ? (body['keys'] ?? {}) : {}) as Readonly<Record<string, unknown>>;
  const members = ['endpoint', 'expirationTime', 'keys', 'label'];
  const faults: { field: string; message: string }[] = [];
  const fault = (field: string, message: string): void => void faults.push({ field, message });
  for (const name of Object.keys(body)) {
    if (!members.includes(name)) fault(name, `is no part of a push subscription${suggestion(name, members)}`);
  }
  if (typeof endpoint !== 'string') fault('endpoint', 'must be the URL that the browser gave');
  else {
    const judged = judgeUrl(endpoint, { allowPrivate });
    if (judged.fault !== undefined) fault('endpoint', judged.fault);
  }
  const text = (name: string): string => (typeof keys[name] === 'string' ? keys[name] : '');
  const [p256dh, auth] = [text('p256dh'), text('auth')];
  const badKey = judgePushKeys({ p256dh, auth });
  if (badKey) fault(`keys.${badKey.field}`, `${badKey.fault}, as the browser gave it`);
  if (label !== null && !(typeof label === 'string' && label.length <= longestLabel))
    fault('label', `must be a text of at most ${longestLabel} characters`);
  if (faults.length > 0) throw badBody(faults);
  const bare = (key: string): string => key.replace(/=+$/, '');
  return { endpoint: endpoint as string, p256dh: bare(p256dh), auth: bare(auth), label: label as string | null };
}

function deviceResource(row: DeviceRow): object {
  return {
    id: row.id,
    endpoint: row.endpoint,
    ...(row.label !== null && { label: row.label }),
    createdAt: row.at,
    ...(row.last_used_at !== null && { lastUsedAt: row.last_used_at }),
  };
}
