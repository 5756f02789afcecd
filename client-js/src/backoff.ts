/** When to try again: full jitter, so that clients who lost one server do not come back as a herd. */

const FIRST_MILLISECONDS = 250;
const LONGEST_MILLISECONDS = 15_000;

/**
 * Milliseconds to wait before the given attempt, counted from 0.
 *
 * `askedMilliseconds` is what the server asked for before it went: the wait is spread over at least that long.
 */
export function delay(attempt: number, askedMilliseconds = 0, random: () => number = Math.random): number {
  const grown = Math.min(LONGEST_MILLISECONDS, FIRST_MILLISECONDS * 2 ** attempt);
  return Math.round(random() * Math.max(grown, askedMilliseconds));
}
