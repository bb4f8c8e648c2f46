const slabBytes = 256 * 1024;
const quote = 0x22;
const backslash = 0x5c;
const zero = 0x30;
const upperA = 0x41;
const hexDigits = '0123456789abcdef';

/** Two-character escapes of JSON (RFC 8259, section 7), by byte. */
const shortEscapes: Readonly<Record<number, string>> = {
  0x08: '\\b',
  0x09: '\\t',
  0x0a: '\\n',
  0x0c: '\\f',
  0x0d: '\\r',
  [quote]: '\\"',
  [backslash]: '\\\\',
};

/**
 * Builds JSON documents as bytes, one after the other, in large buffers: what Postgres sends as UTF-8 text goes into the
 * document without ever becoming a JavaScript string. A finished document is a view of the buffer it was written in.
 */
export class JsonWriter {
  #slab = Buffer.allocUnsafe(slabBytes);
  #start = 0;
  #at = 0;

  /** Bytes written of the current document. */
  get length(): number {
    return this.#at - this.#start;
  }

  /** Ends the current document and returns it. */
  take(): Buffer {
    const document = this.#slab.subarray(this.#start, this.#at);
    this.#start = this.#at;
    // Small documents must not keep the buffer of a large one alive.
    if (this.#slab.length > slabBytes) {
      this.#slab = Buffer.allocUnsafe(slabBytes);
      this.#start = this.#at = 0;
    }
    return document;
  }

  /** Forgets what was written of the current document after `length` bytes. */
  truncate(length: number): void {
    this.#at = this.#start + length;
  }

  /** Text that is known to be ASCII and needs no escape. */
  ascii(text: string): void {
    this.#reserve(text.length);
    const slab = this.#slab;
    let at = this.#at;
    for (let i = 0; i < text.length; i++) slab[at++] = text.charCodeAt(i);
    this.#at = at;
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#slab[this.#at++] = value;
  }

  /** A whole number, 0 to 2^32 - 1, in decimal. */
  decimal(value: number): void {
    this.#reserve(10);
    let digits = 1;
    for (let limit = 10; digits < 10 && value >= limit; limit *= 10) digits++;
    let rest = value;
    for (let at = this.#at + digits - 1; at >= this.#at; at--) {
      const next = Math.floor(rest / 10);
      this.#slab[at] = zero + rest - next * 10;
      rest = next;
    }
    this.#at += digits;
  }

  /** A whole number, 0 to 2^32 - 1, as eight upper-case hexadecimal digits. */
  hex8(value: number): void {
    this.#reserve(8);
    for (let shift = 28; shift >= 0; shift -= 4) {
      const digit = (value >>> shift) & 15;
      this.#slab[this.#at++] = digit < 10 ? zero + digit : upperA + digit - 10;
    }
  }

  /** Bytes as they are. */
  raw(source: Buffer, start = 0, end = source.length): void {
    const length = end - start;
    this.#reserve(length);
    if (length > 48) {
      source.copy(this.#slab, this.#at, start, end);
      this.#at += length;
      return;
    }
    const slab = this.#slab;
    let at = this.#at;
    for (let i = start; i < end; i++) slab[at++] = source[i]!;
    this.#at = at;
  }

  /** UTF-8 bytes as a JSON string. */
  string(source: Buffer, start = 0, end = source.length): void {
    // An escape takes six bytes at most.
    this.#reserve((end - start) * 6 + 2);
    const slab = this.#slab;
    let at = this.#at;
    slab[at++] = quote;
    for (let i = start; i < end; i++) {
      const byte = source[i]!;
      if (byte >= 0x20 && byte !== quote && byte !== backslash) slab[at++] = byte;
      else at += slab.write(shortEscapes[byte] ?? `\\u00${hexDigits[byte >> 4]}${hexDigits[byte & 15]}`, at, 'latin1');
    }
    slab[at++] = quote;
    this.#at = at;
  }

  /** A JavaScript string as a JSON string. */
  text(value: string): void {
    this.raw(Buffer.from(JSON.stringify(value)));
  }

  /** Room for `bytes` more; a document that outgrows its buffer moves to the next one. */
  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#slab.length) return;
    const written = this.#slab.subarray(this.#start, this.#at);
    const slab = Buffer.allocUnsafe(Math.max(slabBytes, 2 * written.length + bytes));
    written.copy(slab);
    this.#slab = slab;
    this.#at = written.length;
    this.#start = 0;
  }
}
