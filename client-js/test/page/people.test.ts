import { afterEach, describe, expect, test } from "vitest";
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate } from "y-protocols/awareness";
import * as Y from "yjs";
import { inkOn, PALETTE, safeColour } from "../../src/page/colours.ts";
import { announce, initials, mustChangeColour, people, person } from "../../src/page/people.ts";

const made: Awareness[] = [];

function somebody(client: number): Awareness {
  const doc = new Y.Doc();
  doc.clientID = client;
  const awareness = new Awareness(doc);
  made.push(awareness);
  return awareness;
}

function meet(one: Awareness, other: Awareness): void {
  applyAwarenessUpdate(one, encodeAwarenessUpdate(other, [other.clientID]), null);
}

afterEach(() => {
  for (const awareness of made.splice(0)) awareness.destroy();
});

describe("people", () => {
  test("are me first, then the others in an order of their own", () => {
    const me = somebody(50);
    const others = [70, 20].map(somebody);
    announce(me, "Ada");
    for (const other of others) {
      announce(other, "Grace");
      meet(me, other);
    }

    expect(people(me).map(({ client }) => client)).toEqual([50, 20, 70]);
  });

  test.each([null, 7, "x", [], {}, { user: null }, { user: 3 }, { user: { name: 5, color: {} } }])(
    "are shown whatever they announce: %j",
    (state) => {
      const shown = person(1234, state, false);

      expect(shown.name).toBe("Guest 234");
      expect(PALETTE).toContain(shown.colour);
    },
  );

  test("have names of a length that fits", () => {
    expect(person(1, { user: { name: "x".repeat(5000) } }, false).name).toHaveLength(40);
  });

  test("whoever came later takes another colour, and keeps it", () => {
    const first = somebody(10);
    const second = somebody(20);
    announce(first, "Ada");
    first.setLocalStateField("since", 1);
    announce(second, "Grace");
    second.setLocalStateField("since", 2);
    meet(first, second);
    meet(second, first);

    const firstYields = mustChangeColour(first);
    const secondYields = mustChangeColour(second);
    announce(second, "Grace");

    expect([firstYields, secondYields]).toEqual([false, true]);
    expect(mustChangeColour(second)).toBe(false);
    expect(people(second)[0]?.colour).not.toBe(people(second)[1]?.colour);
  });
});

describe("initials", () => {
  test.each([
    ["Quiet Heron", "QH"],
    ["ada", "A"],
    ["Anna Maria van Dyck", "AD"],
    ["😀 zed", "😀Z"],
    ["", ""],
  ])("of %j are %j", (name, letters) => {
    expect(initials(name)).toBe(letters);
  });
});

describe("colours", () => {
  test.each(["red", "#fff", "url(//evil)", "#12345g", "#123456;x:y", null, 4])("refuse %j", (colour) => {
    expect(PALETTE).toContain(safeColour(colour, 3));
  });

  test("are kept when they are colours", () => {
    expect(safeColour("#30bced", 3)).toBe("#30bced");
  });

  test("of the palette carry white, light ones carry black", () => {
    expect(PALETTE.map(inkOn)).toEqual(PALETTE.map(() => "#fff"));
    expect(inkOn("#ffee88")).toBe("#000");
  });
});
