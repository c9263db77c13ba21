/** How well `text` matches what was typed: 0 is not at all. All letters in order; word starts and runs count more. */
export function fuzzy(typed: string, text: string): number {
  const q = typed.toLowerCase();
  const t = text.toLowerCase();
  if (!q) return 1;
  const direct = t.indexOf(q);
  if (direct >= 0) return 1000 - direct + (direct === 0 || /[\s\-_/.]/.test(t[direct - 1]!) ? 500 : 0) - t.length * 0.1;
  let score = 0;
  let at = 0;
  let run = 0;
  for (const c of q) {
    if (c === ' ') continue;
    const found = t.indexOf(c, at);
    if (found < 0) return 0;
    run = found === at ? run + 1 : 0;
    score += 1 + run * 2 + (found === 0 || /[\s\-_/.]/.test(t[found - 1]!) ? 5 : 0);
    at = found + 1;
  }
  // Scattered letters in a long text are chance, not a match.
  return score >= q.length * 2 ? score : 0;
}
