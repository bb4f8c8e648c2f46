const barLength = 20;

/** What share is done, from 0 to 1: a bar, where it can be drawn, and percent. */
export function shareText(share: number, withBar: boolean, most = 100): string {
  const within = Math.min(1, Math.max(0, share));
  const full = Math.round(within * barLength);
  const bar = withBar ? `${'█'.repeat(full)}${'░'.repeat(barLength - full)} ` : '';
  return `${bar}${Math.min(most, Math.floor(within * 100))} %`;
}

/** `1,234` */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `1 letter`, `1,234 letters` */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** `42 s`, `3 min 5 s`, `2 h 10 min` */
export function time(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  return whole < 3_600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
}
