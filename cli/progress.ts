import type { Output } from './output.ts';

/** Shows how far something has come. */
export interface Progress {
  readonly show: (text: string) => void;
  /** Leaves the last state standing. Safe to call twice. */
  readonly end: () => void;
}

const plainEveryMs = 2_000;

/** On a terminal one line that is rewritten, elsewhere a plain line every two seconds, when it says something else. */
export function progressOn(output: Output): Progress {
  let open = false;
  let waiting: string | undefined;
  let said: string | undefined;
  let saidAt = -Infinity;
  const say = (text: string): void => {
    waiting = undefined;
    if (text === said) return;
    [said, saidAt] = [text, performance.now()];
    void output.line(text);
  };
  return {
    show(text) {
      if (output.terminal) {
        open = true;
        void output.write(`\r\u001b[K${text.slice(0, (output.columns ?? 80) - 1)}`);
      } else if (performance.now() - saidAt >= plainEveryMs) say(text);
      else waiting = text;
    },
    end() {
      if (open) void output.line();
      open = false;
      if (waiting !== undefined) say(waiting);
    },
  };
}
