import { HeadwaterError, exitCodes, messageOf } from '../../pipeline/runtime/errors.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { serverAccount } from './account.ts';
import { provideProgram } from './install.ts';
import { cacheDirectory, projectFile } from './paths.ts';
import type { ProgramName } from './programs.ts';

/**
 * Installs the local servers' programs where they are missing, before the tests: there an installation would be cut off by
 * a test's time limit. On a fault it says which and sets the exit code.
 */
export async function preparePrograms(): Promise<void> {
  // For a person to read, also where it is not a terminal.
  const log = createLogger('info', true);
  const cancel = new AbortController();
  const names: readonly ProgramName[] = ['postgres', 'nats', 'redis'];
  try {
    const account = await serverAccount();
    const cache = cacheDirectory(projectFile('.headwater'));
    const options = { cache, account, install: true, log, signal: cancel.signal };
    await Promise.all(names.map((name) => provideProgram(name, options)));
  } catch (error) {
    const known = error instanceof HeadwaterError ? error : undefined;
    process.stderr.write(`headwater: ${messageOf(error)}${known?.hint ? `\n${known.hint}` : ''}\n`);
    process.exitCode = known ? exitCodes[known.reaction] : 1;
  }
}
