import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { madeOut, pieces } from "../../src/page/snippets.ts";

const browser = readFileSync(new URL("../../src/page/snippets/browser.js.txt", import.meta.url), "utf8");
const python = readFileSync(new URL("../../src/page/snippets/python.py.txt", import.meta.url), "utf8");

describe("a snippet", () => {
  test("names the room at hand, safely", () => {
    const code = madeOut(python, "ws://127.0.0.1:8000/ws", 'a"; evil/ü');

    expect(code).toContain('"ws://127.0.0.1:8000/ws/a%22%3B%20evil%2F%C3%BC"');
  });

  test.each([browser, python])("in colour is still the same text", (code) => {
    const shown = pieces(code);

    expect(shown.map(({ text }) => text).join("")).toBe(code);
    expect(new Set(shown.map(({ kind }) => kind))).toEqual(new Set(["comment", "plain", "string", "word"]));
  });

  test("takes an address in a string for no comment", () => {
    const shown = pieces('connect("ws://host/#x")');

    expect(shown.map(({ kind }) => kind)).toEqual(["plain", "string", "plain"]);
  });
});
