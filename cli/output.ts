import { once } from 'node:events';
import picocolors from 'picocolors';

type Colors = ReturnType<typeof picocolors.createColors>;

/** One of the process's two outputs. */
export interface Output {
  /** Colours on a terminal (unless NO_COLOR is set), none in a pipe. */
  readonly colors: Colors;
  readonly terminal: boolean;
  /** Width of the terminal; undefined in a pipe. */
  readonly columns: number | undefined;
  /** Writes text as it is; resolves when more may be written. */
  write(text: string): Promise<void>;
  /** Writes a line. */
  line(text?: string): Promise<void>;
}

/** An output on a stream. Once nobody reads it any more, what is written is dropped. */
export function outputOn(stream: NodeJS.WriteStream, env: Readonly<Record<string, string | undefined>>): Output {
  const terminal = stream.isTTY;
  const colors = picocolors.createColors((terminal || Boolean(env['FORCE_COLOR'])) && !env['NO_COLOR']);
  const write = async (text: string): Promise<void> => {
    if (stream.destroyed || !stream.writable) return;
    // EPIPE is reported to whoever listens for the stream's errors; here it only means that there is nothing to wait for.
    if (!stream.write(text)) await Promise.race([once(stream, 'drain'), once(stream, 'close')]).catch(() => undefined);
  };
  return {
    colors,
    terminal,
    get columns() {
      return terminal ? stream.columns : undefined;
    },
    write,
    line: (text = '') => write(`${text}\n`),
  };
}
