/** ISO 8601 with up to six decimals, in µs since 1970. */
export function microsOfText(text: string): number {
  const [, seconds, decimals = '', zone = 'Z'] = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:?\d\d)?$/.exec(text) ?? [];
  if (seconds === undefined) throw new Error(`not a time: ${text}`);
  return Date.parse(seconds + zone) * 1_000 + Number(decimals.padEnd(6, '0'));
}
