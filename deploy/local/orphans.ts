import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { findProcesses, signalProcess, waitUntil } from './processes.ts';

/** By what the processes of a server on its data are known, and how they are stopped. */
export interface ServerTrace {
  readonly label: string;
  /** The name of its processes. */
  readonly program: string;
  /** A word of the command line that only this server on this data has: its data directory. */
  readonly marker: string;
  readonly stopSignal: NodeJS.Signals;
  /** Sent when it has not stopped in time. */
  readonly forceSignal: NodeJS.Signals;
}

/** How long a server may take to stop before it is forced to. */
export const stopTimeoutMs = 15_000;

/**
 * Stops a server that a killed process has left behind. The caller holds the data directory's lock, so nobody needs it.
 * @throws HeadwaterError `orphan_stays`
 */
export async function stopOrphans({ label, program, marker, stopSignal, forceSignal }: ServerTrace, log: Logger): Promise<void> {
  const orphans = await findProcesses(program, marker);
  if (orphans.length === 0) return;
  log.info(`${label}: stopping process ${orphans[0]!.pid}, left behind by a run that was killed`);
  for (const { pid } of orphans) signalProcess(pid, stopSignal);
  const gone = async (): Promise<boolean> => (await findProcesses(program, marker)).length === 0;
  if (await waitUntil(gone, stopTimeoutMs)) return;
  for (const { pid } of await findProcesses(program, marker)) signalProcess(pid, forceSignal);
  if (!(await waitUntil(gone, 5_000)))
    throw new HeadwaterError('orphan_stays', `${label}: process ${orphans[0]!.pid} does not stop`, {
      hint: `stop it: kill -9 ${orphans[0]!.pid}`,
    });
}
