import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { connectPostgres } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import type { BenchServers } from './servers.ts';
import { median } from './statistics.ts';

/** What figures depend on. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  /** Median time in ms to write 4 KiB to the disk that the servers use, and sync it. */
  readonly fsyncMs: number;
  /** The data is in memory: then an fsync costs nothing, and durable figures mean nothing. */
  readonly dataInMemory: boolean;
  readonly node: string;
  readonly postgres: string;
  readonly nats: string;
}

const tmpfs = 0x01021994;

export async function describeMachine({ data, databaseUrl, connection }: BenchServers): Promise<Machine> {
  const client = await connectPostgres(databaseUrl, 'headwater bench', silentLogger());
  const { rows } = await client.query<{ server_version: string }>('SHOW server_version');
  await client.end();
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 1024 ** 3),
    fsyncMs: measureFsync(join(data, 'fsync')),
    dataInMemory: statfsSync(data).type === tmpfs,
    node: process.versions.node,
    postgres: rows[0]!.server_version.split(' ')[0]!,
    nats: connection.info?.version ?? 'unknown',
  };
}

export function machineLine(machine: Machine): string {
  const { cpu, cores, memoryGb, fsyncMs, node, postgres, nats } = machine;
  const disk = machine.dataInMemory ? 'DATA IN MEMORY: figures of durable writes mean nothing' : `fsync ${fsyncMs.toFixed(2)} ms`;
  return `${cores} × ${cpu}, ${memoryGb} GB, ${disk}; Node ${node}, PostgreSQL ${postgres}, nats-server ${nats}`;
}

function measureFsync(path: string): number {
  const file = openSync(path, 'w');
  try {
    const block = Buffer.alloc(4_096, 1);
    const times = Array.from({ length: 50 }, () => {
      const begun = performance.now();
      writeSync(file, block);
      fsyncSync(file);
      return performance.now() - begun;
    });
    return median(times);
  } finally {
    closeSync(file);
    rmSync(path, { force: true });
  }
}
