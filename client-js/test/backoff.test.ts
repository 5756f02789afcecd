import { describe, expect, test } from "vitest";
import { delay } from "../src/backoff.ts";

const longest = () => 1;

describe("the wait before the next attempt", () => {
  test("doubles with each attempt and ends at fifteen seconds", () => {
    const waits = [0, 1, 2, 3, 20, 2000].map((attempt) => delay(attempt, 0, longest));

    expect(waits).toEqual([250, 500, 1000, 2000, 15_000, 15_000]);
  });

  test("is spread over all of that time, so that clients do not come back as a herd", () => {
    const waits = [0, 0.25, 0.5, 1].map((random) => delay(4, 0, () => random));

    expect(waits).toEqual([0, 1000, 2000, 4000]);
  });

  test("is spread over what the server asked for when that is longer", () => {
    expect(delay(0, 20_000, longest)).toBe(20_000);
    expect(delay(20, 1000, longest)).toBe(15_000);
  });
});
