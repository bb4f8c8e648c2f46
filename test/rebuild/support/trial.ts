export interface TrialOptions {
  /** How many commands are killed before the last rebuild. */
  readonly kills: number;
  readonly seed: number;
  readonly say?: (text: string) => void;
}

export interface TrialReport {
  readonly events: number;
  /** By command and what stood beside then. */
  readonly kills: Readonly<Record<string, number>>;
  readonly roleKills: number;
  /** By who polls the live state. */
  readonly readings: number;
}
