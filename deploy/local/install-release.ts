import { withDeadline } from '../../pipeline/runtime/tasks.ts';
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { exec } from './exec.ts';

/** The official NATS server that is taken where the system has none. */
const version = '2.14.5';
const base = `https://github.com/nats-io/nats-server/releases/download/v${version}`;

/** SHA-256 of its archives, as the official container images check them. For other platforms the release's own list is used. */
const pinned: Readonly<Record<string, string>> = {
  'linux-amd64': '5e3b603d47c447bda1f77f9ac16dbf91c90aac4ff3681f8fbbc7201e4ed99355',
  'linux-arm64': '673a98d3faa79dde3f9ebf16d6dfac36a5f694e7ad2015e4954dd7939c85cd4c',
};

/** Downloads, verifies and unpacks the official release; the program ends up in `bin`. */
export async function unpackNatsRelease(directory: string, signal: AbortSignal): Promise<void> {
  const archive = `nats-server-v${version}-${platform()}.tar.gz`;
  const expected = pinned[platform()] ?? (await publishedChecksum(archive, signal));
  const bytes = await download(archive, signal);
  const actual = createHash('sha256').update(bytes).digest('hex');
  if (actual !== expected) throw new Error(`${archive} has the checksum ${actual}, not ${expected}: not used`);
  const file = join(directory, archive);
  writeFileSync(file, bytes);
  mkdirSync(join(directory, 'bin'));
  await exec('tar', ['-xzf', file, '-C', join(directory, 'bin'), '--strip-components=1'], { signal });
  rmSync(file);
}

async function publishedChecksum(archive: string, signal: AbortSignal): Promise<string> {
  const lines = (await download('SHA256SUMS', signal)).toString('utf8').split('\n');
  const found = lines.map((line) => line.trim().split(/\s+\*?/)).find(([, file]) => file === archive)?.[0];
  if (found === undefined) throw new Error(`the release names no checksum for ${archive}`);
  return found;
}

function platform(): string {
  const architecture = ({ x64: 'amd64', arm64: 'arm64' } as Partial<Record<NodeJS.Architecture, string>>)[process.arch];
  if (architecture === undefined || !['linux', 'darwin'].includes(process.platform))
    throw new Error(`there is no release for ${process.platform} on ${process.arch}`);
  return `${process.platform}-${architecture}`;
}

async function download(file: string, signal: AbortSignal): Promise<Buffer> {
  return withDeadline(120_000, signal, async (attempt) => {
    const response = await fetch(`${base}/${file}`, { signal: attempt }).catch((error: unknown) => {
      throw new Error(`${base}/${file}: ${messageOf(error instanceof Error && error.cause ? error.cause : error)}`, { cause: error });
    });
    if (!response.ok) throw new Error(`${base}/${file} answered ${response.status}`);
    return Buffer.from(await response.arrayBuffer());
  });
}
