import { once } from 'node:events';
import Table from 'cli-table3';
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

/** Columns of text under a heading, without lines around them. */
export function table(
  output: Output,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  widths: readonly (number | null)[] = [],
): string {
  const none = {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
    left: '',
    'left-mid': '',
    mid: '',
    'mid-mid': '',
    right: '',
    'right-mid': '',
    middle: '  ',
  };
  const made = new Table({
    head: head.map((name) => output.colors.bold(name)),
    chars: none,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    ...(widths.length > 0 && output.terminal ? { colWidths: [...widths], wordWrap: true } : {}),
  });
  made.push(...rows.map((row) => [...row]));
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
