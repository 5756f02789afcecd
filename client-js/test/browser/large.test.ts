/** The client without a page, over a real server: what was made without a connection and is longer than the server takes at once. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import type { OpenSocket } from "../../src/connection.ts";
import { Provider } from "../../src/provider.ts";
import { Server } from "./serving.ts";

const server = new Server("--max-update-bytes", "65536");
const alive: Provider[] = [];

beforeAll(() => server.start());

afterAll(async () => {
  for (const provider of alive) {
    provider.destroy();
    provider.awareness.destroy();
  }
  await server[Symbol.asyncDispose]();
});

function join(room: string, doc: Y.Doc): Provider {
  const url = `${server.address.replace("http", "ws")}/ws/${room}`;
  const openSocket = ((address, protocols) => new WebSocket(address, protocols)) as OpenSocket;
  const provider = new Provider({ url, doc, awareness: new Awareness(doc), openSocket });
  alive.push(provider);
  return provider;
}

test("a long edit made offline, and a long paste, reach the others and the disk", async () => {
  const doc = new Y.Doc();
  const text = doc.getText("text");
  for (let line = 0; line < 4000; line++) text.insert(0, `Line ${line} – größer 😀, and some more words.\n`);
  text.delete(1000, 100);

  const writer = join("long", doc);
  await expect.poll(() => writer.getSnapshot()).toMatchObject({ isSynced: true, unsaved: 0 });
  text.insert(text.length, "pasted 漢字 ".repeat(20_000));
  text.insert(0, "# Title\n");
  await expect.poll(() => writer.getSnapshot().unsaved).toBe(0);
  const other = new Y.Doc();
  join("long", other);

  await expect.poll(() => other.getText("text").length).toBe(text.length);
  expect(other.getText("text").toString()).toBe(text.toString());
  expect(writer.getSnapshot().link).toEqual({ type: "connected" });
});
