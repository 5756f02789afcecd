import { describe, expect, test } from "vitest";
import { announcement, stateOf } from "../../src/page/state.ts";
import type { Status } from "../../src/provider.ts";

const saved: Status = {
  link: { type: "connected" },
  isSynced: true,
  unsaved: 0,
  isReadOnly: false,
  user: null,
  savedAfterMilliseconds: null,
  turn: null,
  turnEnded: null,
};
const waiting = { type: "waiting", attempt: 0 } as const;

describe("what the page says", () => {
  test.each([
    [saved, "Saved"],
    [{ ...saved, unsaved: 1 }, "Saving…"],
    [{ ...saved, link: { type: "connecting" }, isSynced: false }, "Connecting…"],
    [{ ...saved, isSynced: false }, "Connecting…"],
    [{ ...saved, link: waiting, isSynced: false }, "Offline"],
    [{ ...saved, link: waiting, unsaved: 1 }, "Offline — 1 change kept in this tab"],
    [{ ...saved, link: waiting, unsaved: 12 }, "Offline — 12 changes kept in this tab"],
    [{ ...saved, link: { type: "connecting" }, unsaved: 2 }, "Offline — 2 changes kept in this tab"],
    [{ ...saved, isReadOnly: true }, "Read-only: nothing can be saved now"],
    [{ ...saved, isReadOnly: true, unsaved: 3 }, "Read-only — 3 changes kept in this tab"],
    [{ ...saved, link: { type: "stopped", code: 4404, reason: "gone" } }, "Stopped"],
    [{ ...saved, link: { type: "stopped", code: 4401, reason: "gone" } }, "Not signed in"],
    [
      { ...saved, link: { type: "stopped", code: 4403, reason: "gone" }, unsaved: 1 },
      "Not admitted — 1 change kept in this tab",
    ],
  ] as const)("of %j", (status, words) => {
    expect(stateOf(status).words).toBe(words);
  });

  test("is saved in one case only", () => {
    const cases: Status[] = [];
    for (const link of [
      { type: "connecting" },
      { type: "connected" },
      waiting,
      { type: "stopped", code: 4404, reason: "" },
    ] as const)
      for (const isSynced of [true, false])
        for (const unsaved of [0, 1])
          for (const isReadOnly of [true, false])
            cases.push({ ...saved, link, isSynced, unsaved, isReadOnly });

    expect(cases.filter((status) => stateOf(status).mood === "saved")).toEqual([saved]);
  });

  test("says why nothing can be written, as far as it knows", () => {
    const reader = { ...saved, isReadOnly: true, user: { id: "ada", name: "Ada" } };

    expect(stateOf(reader, false)).toMatchObject({
      words: "Read-only",
      detail: "You may read this document, not change it.",
      mayWrite: false,
    });
    expect(stateOf(reader).detail).toMatch(/you may only read here, or nothing can be saved/);
  });

  test("lets nobody type into a void", () => {
    expect(stateOf({ ...saved, link: { type: "stopped", code: 4404, reason: "gone" } })).toMatchObject({
      mayWrite: false,
      detail: "Gone.",
    });
    expect(stateOf({ ...saved, isReadOnly: true }).mayWrite).toBe(false);
    expect(stateOf({ ...saved, link: waiting }).mayWrite).toBe(true);
  });

  test("is read out when it matters, not at every keystroke", () => {
    const saving = announcement(stateOf({ ...saved, unsaved: 1 }));

    expect(saving).toBe(announcement(stateOf(saved)));
    expect(announcement(stateOf({ ...saved, link: waiting, unsaved: 1 }))).toContain("1 change kept");
  });
});
