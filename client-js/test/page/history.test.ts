import { describe, expect, test } from "vitest";
import { credits, readActivity, readBlame } from "../../src/page/history.ts";
import { person } from "../../src/page/people.ts";

const ada = { principal: "ada", name: "Ada", kind: "human" };
const agent = { principal: "bot", name: "Reviewer", kind: "agent", on_behalf_of: "Ada" };

function span(start: number, end: number, author = 0) {
  return { start, end, author, time: 60_000 };
}

describe("who wrote what", () => {
  test("is counted in characters by the server, and in UTF-16 by an editor", () => {
    const runs = readBlame({ authors: [ada, agent], spans: [span(0, 2), span(2, 4, 1)] }, "a🌱é🎉z");

    expect(runs.map(({ start, end, author }) => [start, end, author.name])).toEqual([
      [0, 3, "Ada"],
      [3, 6, "Reviewer"],
    ]);
  });

  test("is cut where the text has become shorter", () => {
    const runs = readBlame({ authors: [ada], spans: [span(0, 3), span(3, 90), span(90, 99)] }, "four");

    expect(runs.map(({ start, end }) => [start, end])).toEqual([
      [0, 3],
      [3, 4],
    ]);
  });

  test.each([
    null,
    7,
    {},
    { authors: 3, spans: 4 },
    { authors: [], spans: [span(0, 2)] },
    { authors: [ada], spans: [null, { start: "0", end: {} }, span(3, 1), span(-4, -1)] },
  ])("is nobody's where the answer makes no sense: %j", (answer) => {
    expect(readBlame(answer, "words")).toEqual([]);
  });

  test("never overlaps, whatever the answer says", () => {
    const runs = readBlame({ authors: [ada], spans: [span(2, 5), span(0, 4)] }, "words");

    expect(runs.map(({ start, end }) => [start, end])).toEqual([
      [0, 4],
      [4, 5],
    ]);
  });
});

describe("credits", () => {
  const runs = readBlame(
    {
      authors: [
        ada,
        { ...agent, turn: "1", reason: "a doubled word" },
        { ...agent, turn: "2", reason: "teh" },
        { ...agent, turn: "3", reason: "teh" },
      ],
      spans: [span(0, 1), span(1, 2, 1), span(2, 3, 2), span(3, 4, 3)],
    },
    "words",
  );

  test("are one for each author, with the reasons of all turns", () => {
    const found = credits(runs, []);

    expect(
      found.map(({ name, isAgent, onBehalfOf, reasons }) => [name, isAgent, onBehalfOf, reasons]),
    ).toEqual([
      ["Ada", false, "", []],
      ["Reviewer", true, "Ada", ["a doubled word", "teh"]],
    ]);
    expect(new Set(found.map(({ colour }) => colour)).size).toBe(2);
  });

  test("have the colour of who is here, and nobody else has it", () => {
    const user = { id: "bot", name: "Reviewer", kind: "agent", color: "#c2255c" };
    const here = [person(1, { user }, false)];

    const [first, second] = credits(runs, here);

    expect(second?.colour).toBe("#c2255c");
    expect(first?.colour).not.toBe("#c2255c");
  });
});

describe("what agents did", () => {
  const entry = (author: number, undone_by = "") => ({ author, ended: 60_000, undone_by });

  test("is told by turns, without people and undos", () => {
    const authors = [
      ada,
      { ...agent, turn: "2" },
      { ...agent, turn: "1" },
      { ...agent, turn: "3", undoes: "1" },
    ];

    const found = readActivity({ authors, entries: [entry(3), entry(1), entry(0), entry(2, "3")] });

    expect(found.map(({ author, undoneBy }) => [author.turn, undoneBy])).toEqual([
      ["2", ""],
      ["1", "3"],
    ]);
  });

  test.each([null, {}, { authors: [agent], entries: [3, { author: 9 }, { author: "0" }] }])(
    "is nothing where the answer makes no sense: %j",
    (answer) => {
      expect(readActivity(answer)).toEqual([]);
    },
  );
});
