import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connectNats, type NatsConnection } from '../../../pipeline/clients/nats.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import type { FreshLog } from '../../pipeline/log/support/fresh-log.ts';
import { filledLog } from '../../pipeline/replay/support/replay-log.ts';
import { testServers } from '../../support/servers.ts';

/** A log with events in it, and a directory for each test that replays them. */
export interface ReplayFixture {
  readonly connection: NatsConnection;
  readonly fresh: FreshLog;
  /** An empty directory, and the environment of a command that replays the log and keeps its data there. */
  folder(): { readonly path: string; readonly env: Record<string, string>; remove(): void };
  close(): Promise<void>;
}

/** @param count how many events the log has */
export async function replayFixture(count: number): Promise<ReplayFixture> {
  const { natsUrl } = await testServers();
  const connection = await connectNats(natsUrl, 'test', silentLogger());
  const fresh = await filledLog(connection, count);
  return {
    connection,
    fresh,
    folder() {
      const path = mkdtempSync(join(tmpdir(), 'headwater-replay-'));
      const env = { NATS_URL: natsUrl, HEADWATER_STREAM: fresh.subject, HEADWATER_SUBJECT: fresh.subject, HEADWATER_DATA: path };
      return { path, env, remove: () => rmSync(path, { recursive: true, force: true }) };
    },
    async close() {
      fresh.log.close();
      await fresh.remove();
      await connection.close();
    },
  };
}
