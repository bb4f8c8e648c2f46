/**
 * How a row is named in paths and in the cache: the values of its primary key in key order, percent-encoded, joined by `:`.
 * A value is what the event's `key` holds: a string's content, any other JSON value as it is written there.
 */
export function encodeRowKey(values: readonly string[]): string {
  return values.length === 1 ? encodeValue(values[0]!) : values.map(encodeValue).join(':');
}

function encodeValue(value: string): string {
  return /^[\w.~-]*$/.test(value) ? value : encodeURIComponent(value);
}

/** The values of an encoded key; undefined when it is none. */
export function decodeRowKey(key: string): readonly string[] | undefined {
  try {
    return key.split(':').map(decodeURIComponent);
  } catch {
    return undefined;
  }
}
