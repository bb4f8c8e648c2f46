const barLength = 20;

/** A bar of what share is done, from 0 to 1. */
export function bar(share: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * barLength);
  return `${'█'.repeat(full)}${'░'.repeat(barLength - full)}`;
}

/** `1,234` */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `42 s`, `3 min 5 s`, `2 h 10 min` */
export function time(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  return whole < 3_600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
}
