import { describe, expect, test } from "vitest";
import { described, explained, news } from "../../src/page/agents.ts";
import { type Doing, person } from "../../src/page/people.ts";

function agent(client: number, doing: Doing = "idle", more: object = {}) {
  const user = { name: "Reviewer", kind: "agent", role: "reviewer", on_behalf_of: "Ada" };
  return person(client, { user, agent: { status: doing, ...more } }, false);
}

describe("an agent", () => {
  test("is who says so, and shows what it does", () => {
    const shown = agent(1, "writing", { task: "review", detail: "teh", turn: "t1", tail: "the" }).agent;

    expect(shown).toEqual({
      role: "reviewer",
      onBehalfOf: "Ada",
      doing: "writing",
      task: "review",
      detail: "teh",
      turn: "t1",
      tail: "the",
    });
    expect(person(1, { user: { name: "Ada", kind: "human" }, agent: {} }, false).agent).toBeNull();
  });

  test.each([undefined, null, 7, [], { status: "dancing", task: 3, detail: {}, turn: [], tail: 1 }])(
    "is shown whatever it announces: %j",
    (said) => {
      const shown = person(1, { user: { kind: "agent", role: 4 }, agent: said }, false).agent;

      expect(shown).toEqual({
        role: "",
        onBehalfOf: "",
        doing: "idle",
        task: "",
        detail: "",
        turn: "",
        tail: "",
      });
    },
  );

  test("takes no more room than there is", () => {
    const long = "x".repeat(5000);

    const shown = agent(1, "writing", { task: long, detail: long, tail: long }).agent;

    expect([shown?.task.length, shown?.detail.length, shown?.tail.length]).toEqual([160, 160, 256]);
  });

  test("is described by its role and whom it works for, and explained by its own words", () => {
    const shown = agent(1, "writing", { task: "review", detail: "" }).agent;

    expect(shown && described(shown)).toBe("reviewer, for Ada");
    expect(shown && explained(shown)).toBe("review");
  });
});

describe("news", () => {
  test("are that an agent comes, leaves, waits or is in trouble", () => {
    expect(news([], [agent(1)])).toBe("Reviewer, an agent, is here.");
    expect(news([agent(1)], [])).toBe("Reviewer has left.");
    expect(news([agent(1)], [agent(1, "waiting_approval")])).toBe("Reviewer: Waits for approval.");
    expect(news([agent(1, "writing")], [agent(1, "error")])).toBe("Reviewer: Has a problem.");
  });

  test("are not that it works", () => {
    expect(news([agent(1)], [agent(1, "thinking")])).toBe("");
    expect(news([agent(1, "error")], [agent(1, "error", { detail: "still" })])).toBe("");
  });
});
