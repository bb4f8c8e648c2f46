import type { Phase, Pieces } from './walk.ts';

/** What a rebuild of alerts sends to PostgreSQL in which phase. */
export const alertsPhases: Readonly<Record<Phase, Pieces>> = {
  fill: { of: (piece) => piece.includes('INSERT INTO headwater.alert_state_'), least: 3 },
  comparison: { of: (piece) => piece.includes('both_states'), least: 5 },
  // The exchange, and COMMIT.
  flip: { of: (piece) => piece.includes('other.redriven'), least: 2 },
  drop: { of: (piece) => piece.includes('dropping'), least: 5 },
};
