import Mocha from 'mocha';

/** Mocha's `spec` reporter, and one plain line at the very end: `N passed, N failed`, with `, N skipped` when some were. */
export default class SummaryReporter extends Mocha.reporters.Spec {
  override epilogue(): void {
    super.epilogue();
    const { passes, failures, pending } = this.stats;
    process.stdout.write(`${passes} passed, ${failures} failed${pending > 0 ? `, ${pending} skipped` : ''}\n`);
  }
}
