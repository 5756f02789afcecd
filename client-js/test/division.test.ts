import { describe, expect, test } from "vitest";
import * as Y from "yjs";
import { divide, Indivisible } from "../src/division.ts";

/** Always the same numbers from 0 to 1, for one seed. */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const WORDS = ["plain ", "größer ", "漢字", "😀👍🏽", "e\u0301", "line\n"];

/** Several people write into texts, lists, maps and XML, partly apart from each other. */
function written(seed: number): Y.Doc[] {
  const next = chance(seed);
  const below = (end: number) => Math.floor(next() * end);
  const docs = [1, 2, 3].map((client) => {
    const doc = new Y.Doc();
    doc.clientID = client * 1000 + seed;
    return doc;
  });
  for (let step = 0; step < 60; step++) {
    const doc = docs[below(docs.length)] as Y.Doc;
    const text = doc.getText("text");
    const list = doc.getArray("list");
    const top = doc.getXmlFragment("xml");
    const map = doc.getMap("map");
    const place = below(text.length + 1);
    switch (below(7)) {
      case 0:
        text.insert(place, (WORDS[below(WORDS.length)] ?? "").repeat(1 + below(40)), { bold: next() < 0.5 });
        break;
      case 1:
        text.delete(place, Math.min(below(30), text.length - place));
        break;
      case 2:
        list.insert(
          below(list.length + 1),
          Array.from({ length: below(30) }, (_, value) => value),
        );
        break;
      case 3:
        if (list.length > 3) list.delete(below(list.length - 2), 2);
        break;
      case 4: {
        const paragraph = new Y.XmlElement("paragraph");
        paragraph.insert(0, [new Y.XmlText("said ".repeat(below(30)))]);
        top.insert(below(top.length + 1), [paragraph]);
        break;
      }
      case 5:
        map.set(`key${below(5)}`, { value: step });
        break;
      default: {
        const other = docs[below(docs.length)] as Y.Doc;
        Y.applyUpdate(doc, Y.encodeStateAsUpdate(other, Y.encodeStateVector(doc)));
      }
    }
  }
  return docs;
}

function content(doc: Y.Doc): unknown {
  const list = doc.getArray("list").toJSON();
  const map = doc.getMap("map").toJSON();
  return [doc.getText("text").toDelta(), list, map, doc.getXmlFragment("xml").toString()];
}

describe("a long update", () => {
  test.each(Array.from({ length: 60 }, (_, seed) => seed))("in parts says the same (%i)", (seed) => {
    const [first, second, third] = written(seed) as [Y.Doc, Y.Doc, Y.Doc];
    const server = new Y.Doc();
    Y.applyUpdate(server, Y.encodeStateAsUpdate(second));
    const known = Y.encodeStateVector(server);
    Y.applyUpdate(first, Y.encodeStateAsUpdate(third));
    const update = Y.encodeStateAsUpdate(first, known);
    Y.applyUpdate(second, update);

    const parts = divide(update, 150);

    for (const part of parts) {
      expect(part.length).toBeLessThanOrEqual(150);
      Y.applyUpdate(server, part);
      expect(server.store.pendingStructs).toBe(null);
      expect(server.store.pendingDs).toBe(null);
    }
    expect(content(server)).toEqual(content(second));
    expect(Y.encodeStateVector(server)).toEqual(Y.encodeStateVector(second));
  });

  test("that is not too long stays as it is", () => {
    const update = Y.encodeStateAsUpdate(written(1)[0] as Y.Doc);

    expect(divide(update, update.length)).toEqual([update]);
  });

  test("keeps a hole between structs of one client", () => {
    const doc = new Y.Doc();
    const updates: Uint8Array[] = [];
    doc.on("update", (update: Uint8Array) => updates.push(update));
    for (const word of ["a".repeat(50), "hole", "b".repeat(50)]) doc.getMap("m").set(word, word);
    const [before, hole, after] = updates as [Uint8Array, Uint8Array, Uint8Array];
    const server = new Y.Doc();

    for (const part of divide(Y.mergeUpdates([before, after]), 190)) Y.applyUpdate(server, part);
    Y.applyUpdate(server, hole);

    expect(server.getMap("m").toJSON()).toEqual(doc.getMap("m").toJSON());
    expect(server.store.pendingStructs).toBe(null);
  });

  test("of one value that is too long is not divided", () => {
    const doc = new Y.Doc();
    doc.getArray("files").push([new Uint8Array(500)]);

    expect(() => divide(Y.encodeStateAsUpdate(doc), 200)).toThrow(Indivisible);
  });
});
