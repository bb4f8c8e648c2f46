/** Names are shorter; comparing a longer text would take long. */
const longestName = 128;

/** The candidate that is fewest edits away, if it is near enough to be a typing error: two edits, one in a short name. */
function nearestName(wanted: string, candidates: readonly string[]): string | undefined {
  if (wanted.length > longestName) return undefined;
  let best: string | undefined;
  let bestDistance = wanted.length < 6 ? 2 : 3;
  for (const candidate of candidates) {
    // Each character that one has more is an edit.
    if (Math.abs(wanted.length - candidate.length) >= bestDistance) continue;
    const distance = editDistance(wanted.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** `; did you mean x?`, or nothing when no candidate is near. */
export function suggestion(wanted: string, candidates: readonly string[]): string {
  const nearest = nearestName(wanted, candidates);
  return nearest === undefined ? '' : `; did you mean ${nearest}?`;
}

/** Insertions, deletions, substitutions and swaps of neighbours, row by row; names are short. */
function editDistance(a: string, b: string): number {
  let before: readonly number[] = [];
  let previous: readonly number[] = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? before[j - 2]! + 1 : Infinity;
      row[j] = Math.min(previous[j]! + 1, row[j - 1]! + 1, substituted, swapped);
    }
    [before, previous] = [previous, row];
  }
  return previous[b.length]!;
}
