import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { gzip as gzipCallback } from 'node:zlib';
import type { LogEvent } from '../log/event-log.ts';
import { refused, type HeadwaterError } from '../runtime/errors.ts';
import { fileFault, syncDirectory } from './checkpoint.ts';
import { nothingSettled, type ReplayTarget, type Settled } from './target.ts';

const gzip = promisify(gzipCallback);

/** Text that is collected before it is written; of a gzip file, the least of a member. */
const blockBytes = 1024 ** 2;
/** The bytes around an event in its line: `{"seq":<16 digits>,"event":` … `}\n`. */
const lineBytes = 40;

/**
 * A file of one line an event, `{"seq":…,"event":…}`, the event as the log has it. A file named `….gz` is a row of gzip members (RFC 1952:
 * together they are one gzip file), each cut by the length of the lines in it alone: so its bytes, too, depend on the events only.
 */
export class FileTarget implements ReplayTarget {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #zipped: boolean;
  #block = Buffer.allocUnsafe(blockBytes + 64 * 1024);
  #filled = 0;
  /** Events in the block, and the last of them. */
  #inBlock = { events: 0, bytes: 0, through: 0 };
  #length: number;
  #written: Settled;
  #closed = false;

  private constructor(path: string, file: FileHandle, before: Settled, length: number) {
    this.#path = path;
    this.#file = file;
    this.#zipped = isZipped(path);
    this.#written = before;
    this.#length = length;
  }

  /**
   * Opens a new file, or one of an earlier run, which is cut to the length that it had for certain.
   * @param before what the earlier run had made durable; undefined: a new file, replacing what is there
   * @throws HeadwaterError `file_changed` (refused) when it is shorter than that, or gone
   */
  static async open(path: string, before: Settled | undefined): Promise<FileTarget> {
    try {
      return await openFile(path, before, (...parts) => new FileTarget(...parts));
    } catch (error) {
      throw fileFault(path, error);
    }
  }

  async write(events: readonly LogEvent[]): Promise<void> {
    for (const event of events) {
      this.#append(event);
      if (this.#filled >= blockBytes) await this.#flush();
    }
  }

  /** A gzip member is written when it is full, or at the end: what is not full stays for a replay that goes on. */
  async settle(end: boolean): Promise<Settled> {
    if (this.#filled > 0 && (end || !this.#zipped)) await this.#flush();
    try {
      // An empty file that is to be gzip holds one empty member.
      if (end && this.#zipped && this.#length === 0) await this.#put(await gzip(Buffer.alloc(0)));
      await this.#file.datasync();
    } catch (error) {
      throw fileFault(this.#path, error);
    }
    return (this.#written = { ...this.#written, state: { length: this.#length } });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }

  #append({ seq, data }: LogEvent): void {
    const needed = this.#filled + data.length + lineBytes;
    if (needed > this.#block.length) this.#block = Buffer.concat([this.#block.subarray(0, this.#filled)], 2 * needed);
    const before = this.#filled;
    this.#filled += this.#block.write(`{"seq":${seq},"event":`, this.#filled, 'latin1');
    this.#block.set(data, this.#filled);
    this.#filled += data.length;
    this.#filled += this.#block.write('}\n', this.#filled, 'latin1');
    this.#inBlock = { events: this.#inBlock.events + 1, bytes: this.#inBlock.bytes + this.#filled - before, through: seq };
  }

  async #flush(): Promise<void> {
    const text = this.#block.subarray(0, this.#filled);
    try {
      await this.#put(this.#zipped ? await gzip(text) : text);
    } catch (error) {
      throw fileFault(this.#path, error);
    }
    const { events, bytes, through } = this.#inBlock;
    this.#written = { through, events: this.#written.events + events, bytes: this.#written.bytes + bytes };
    this.#inBlock = { events: 0, bytes: 0, through: 0 };
    this.#filled = 0;
  }

  /** At the place where it belongs, so that a write that failed halfway is done over. */
  async #put(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, this.#length + done);
      done += bytesWritten;
    }
    this.#length += bytes.length;
  }
}

/** Is the file to be compressed, by its name? */
function isZipped(path: string): boolean {
  return /\.gz$/i.test(path);
}

async function openFile<T>(
  path: string,
  before: Settled | undefined,
  make: (path: string, file: FileHandle, before: Settled, length: number) => T,
): Promise<T> {
  const length = Number(before?.state?.['length'] ?? 0);
  // Killed before its first line, a run may not even have made its file.
  const changed = (now: string): HeadwaterError =>
    refused(
      'file_changed',
      `${path} ${now}, and the replay that it is of had written ${length} bytes`,
      'put the file back, or begin anew with --overwrite in the place of --resume',
    );
  const goesOn = length > 0;
  const file = await open(path, goesOn ? 'r+' : 'w').catch((error: unknown) => {
    throw goesOn && (error as NodeJS.ErrnoException).code === 'ENOENT' ? changed('is gone') : error;
  });
  try {
    const { size } = await file.stat();
    if (size < length) throw changed(`has ${size} bytes`);
    await file.truncate(length);
    await syncDirectory(dirname(path));
    return make(path, file, before ?? nothingSettled, length);
  } catch (error) {
    await file.close();
    throw error;
  }
}
