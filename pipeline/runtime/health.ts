/** One thing a role stands on: `required` ones make `/readyz` fail, the others are named as degraded. */
export interface Check {
  readonly name: string;
  readonly required: boolean;
  ok: boolean;
  detail: string;
}

/** What the roles of this process say of themselves, for `/readyz` and `headwater status`. */
export class Health {
  readonly #checks = new Map<string, Check>();

  /** Adds or updates a check; one that was never reported counts as not ok. */
  report(name: string, ok: boolean, detail = '', required = true): void {
    this.#checks.set(name, { name, ok, detail, required });
  }

  /** Takes out a check of something that is no longer there. */
  remove(name: string): void {
    this.#checks.delete(name);
  }

  get checks(): readonly Check[] {
    return [...this.#checks.values()];
  }

  get ready(): boolean {
    return this.checks.every((check) => check.ok || !check.required);
  }
}
