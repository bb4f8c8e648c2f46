import Mocha from 'mocha';

/** How a run ended. */
export interface Sum {
  passes: number;
  failures: number;
  pending: number;
}

/** Written before the failures and the sum of a run that is part of a larger one (`run-all.ts`), which are shown at its end. */
export const epilogueBegins = '\u0000end of the tests\u0000\n';

/** Mocha's `spec` reporter, and one plain line at the very end: `N passed, N failed`, with `, N skipped` when some were. */
export default class SummaryReporter extends Mocha.reporters.Spec {
  override epilogue(): void {
    if (process.env['TEST_PART']) process.stdout.write(epilogueBegins);
    super.epilogue();
    process.stdout.write(`${textOf(this.stats)}\n`);
  }
}

/** The line at the end of a run. */
export function textOf({ passes, failures, pending }: Readonly<Sum>): string {
  return `${passes} passed, ${failures} failed${pending > 0 ? `, ${pending} skipped` : ''}`;
}

/** What the line at the end says; undefined where there is none. */
export function sumOf(text: string): Sum | undefined {
  const found = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/m.exec(text);
  return found ? { passes: Number(found[1]), failures: Number(found[2]), pending: Number(found[3] ?? 0) } : undefined;
}
