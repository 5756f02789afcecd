/** A small generator of equally spread numbers, so that a seed gives the same everywhere. */
export function chances(seed) {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const upTo = (limit) => Math.floor(next() * limit)
  return { upTo, happens: (share) => next() < share, oneOf: (choices) => choices[upTo(choices.length)] }
}
