import { describe, expect, test } from "vitest";
import { describe as described, isFinal, pauseAfter, SILENT } from "../src/closing.ts";

describe("a close code", () => {
  test.each([4400, 4401, 4403, 4404, 4408, 4409, 4413, 4499])("%i ends the retries", (code) => {
    expect(isFinal(code)).toBe(true);
  });

  test.each([1003, 1007, 1009])("%i ends them too: the same bytes would get the same answer", (code) => {
    expect(isFinal(code)).toBe(true);
  });

  test.each([1000, 1001, 1005, 1006, 1011, 1012, 1013, SILENT.code, 4429, 4500, 4599])(
    "%i means later",
    (code) => {
      expect(isFinal(code)).toBe(false);
    },
  );
});

describe("how long to stay away", () => {
  test.each([
    ["retry in 12 s", 12_000],
    ["too many sockets of one address; retry in 5 s", 5000],
    ["", 5000],
  ])("is what a server at its limits says: %j", (reason, milliseconds) => {
    expect(pauseAfter({ code: 4429, reason })).toBe(milliseconds);
  });

  test("is not asked for by others", () => {
    expect(pauseAfter({ code: 1012, reason: "retry in 5 s" })).toBe(0);
  });
});

describe("the words for it", () => {
  test("are ours, with the server's reason behind them", () => {
    expect(described({ code: 4404, reason: "gone since May" })).toBe(
      "this room was deleted (gone since May)",
    );
    expect(described({ code: 4404, reason: "" })).toBe("this room was deleted");
  });

  test("are the server's for a code that we do not know", () => {
    expect(described({ code: 4477, reason: "the moon is full" })).toBe("the moon is full");
    expect(described({ code: 4477, reason: "" })).toBe("the connection was closed (4477)");
  });
});
