// Types an editing trace into a room through stock clients while others read along: `node replay.mjs URL ROOM TRACE`.

import { readFileSync } from "node:fs";
import { setImmediate, setTimeout } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import * as Y from "../compat/node_modules/yjs/dist/yjs.mjs";
import { open } from "../compat/clients.mjs";

const [url, room, path] = process.argv.slice(2);
const trace = JSON.parse(gunzipSync(readFileSync(path)));
const agents = trace.kind === "concurrent" ? trace.numAgents : 1;
const BREATH = 200; // edits between two looks at the network
const UNSENT_BYTES = 1 << 20;

console.log = console.error;

async function until(condition, what) {
  const deadline = performance.now() + 90_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what} did not happen`);
    await setTimeout(5);
  }
}

function splice(doc, patches) {
  doc.transact(() => {
    const text = doc.getText("text");
    for (const [at, removed, inserted] of patches) {
      if (removed) text.delete(at, removed);
      if (inserted) text.insert(at, inserted);
    }
  });
}

/**
 * A concurrent trace as updates, and what each of them builds on: every author's document holds exactly what its
 * author had seen.
 */
function rehearse() {
  const docs = Array.from({ length: agents }, (_, agent) => {
    const doc = new Y.Doc();
    doc.clientID = agent + 1; // whose text comes first where two type at one place is decided by the id
    return doc;
  });
  const heard = docs.map(() => new Set());
  const updates = [];
  for (const [index, { agent, parents, patches }] of trace.txns.entries()) {
    const news = [];
    const open = [...parents];
    while (open.length > 0) {
      const parent = open.pop();
      if (heard[agent].has(parent)) continue;
      heard[agent].add(parent);
      news.push(parent);
      open.push(...trace.txns[parent].parents);
    }
    for (const parent of news.sort((a, b) => a - b)) Y.applyUpdate(docs[agent], updates[parent].update);
    const before = Y.encodeStateVector(docs[agent]);
    docs[agent].once("update", (update) => {
      updates[index] = { agent, update, needs: Y.decodeStateVector(before) };
    });
    splice(docs[agent], patches);
    heard[agent].add(index);
  }
  return updates;
}

const has = (doc, needs) => [...needs].every(([client, clock]) => Y.getState(doc.store, client) >= clock);

async function breathe(author) {
  await setImmediate();
  await until(() => (author.provider.ws?.bufferedAmount ?? 0) < UNSENT_BYTES, "sending");
}

async function type(author) {
  for (const [index, { patches }] of trace.txns.entries()) {
    splice(author.doc, patches);
    if (index % BREATH === 0) await breathe(author);
  }
}

/** Send one author's updates in order, each when what it builds on has come from the server. */
async function perform(author, updates) {
  for (const [index, { update, needs }] of updates.entries()) {
    if (!has(author.doc, needs)) await until(() => has(author.doc, needs), "hearing of the other author");
    Y.applyUpdate(author.doc, update, "typed");
    if (index % BREATH === 0) await breathe(author);
  }
}

const join = (kind) => open(kind, url, room, { watchesEcho: false });
const authors = Array.from({ length: agents }, () => join("y-websocket-3"));
const readers = ["hocuspocus-4", "y-sweet"].map(join);
await until(() => [...authors, ...readers].every((client) => client.isSynced), "the first synchronization");

const rehearsed = agents > 1 ? rehearse() : null;
const start = performance.now();
if (rehearsed)
  await Promise.all(
    authors.map((author, agent) =>
      perform(
        author,
        rehearsed.filter((one) => one.agent === agent),
      ),
    ),
  );
else await type(authors[0]);
const typed = performance.now();

const text = (client) => client.doc.getText("text").toString();
const ended = (client) =>
  client.doc.getText("text").length === trace.endContent.length && text(client) === trace.endContent;
await until(() => [...authors, ...readers].every(ended), "the same text everywhere");
const arrived = performance.now();

const late = ["y-websocket-1", "hocuspocus-2", "y-websocket-4"].map(join);
await until(() => late.every((client) => client.isSynced), "a reload");

const all = [...authors, ...readers, ...late];
process.stdout.write(
  JSON.stringify({
    held: all.map((client) => [client.kind, client.document.content.text === trace.endContent]),
    closes: all.flatMap((client) => client.cable.closes),
    edits: trace.txns.length,
    typing_seconds: (typed - start) / 1000,
    arriving_seconds: (arrived - start) / 1000,
  }),
);
process.exit(0);
