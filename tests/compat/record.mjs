// Records the golden frames of ../vectors: what stock clients send, and what the servers they were made for answer.
//
//     node record.mjs Y_WEBSOCKET_URL HOCUSPOCUS_URL
//
// The two addresses are of @y/websocket-server and @hocuspocus/server (which relays stateless messages), installed
// elsewhere. Y-Sweet's own server cannot be had from a registry, so a stub here says what it would. What each frame
// means is read with lib0, which is not what the server under test reads it with.

import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout } from "node:timers/promises";
import * as decoding from "lib0/decoding";
import { WebSocketServer } from "ws";
import { installed, open } from "./clients.mjs";

const ROOM = "notes/ü";
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytes = (decoder) => hex(decoding.readVarUint8Array(decoder));
const SYNC = [
  (decoder) => ({ type: "SyncStep1", state_vector: bytes(decoder) }),
  (decoder) => ({ type: "SyncStep2", update: bytes(decoder) }),
  (decoder) => ({ type: "Update", update: bytes(decoder) }),
];
const COMMON = {
  0: (decoder) => SYNC[decoding.readVarUint(decoder)](decoder),
  1: (decoder) => ({ type: "AwarenessUpdate", states: bytes(decoder) }),
  3: () => ({ type: "QueryAwareness" }),
};

function meaningOfAuth(decoder, from) {
  const kind = decoding.readVarUint(decoder);
  if (kind === 1) return { type: "PermissionDenied", reason: decoding.readVarString(decoder) };
  if (kind === 2) return { type: "Authenticated", scope: decoding.readVarString(decoder) };
  if (from === "server") return { type: "TokenPlease" };
  const token = decoding.readVarString(decoder);
  return {
    type: "Auth",
    token,
    version: decoding.hasContent(decoder) ? decoding.readVarString(decoder) : null,
  };
}

const HOCUSPOCUS = {
  ...COMMON,
  2: meaningOfAuth,
  5: (decoder) => ({ type: "Stateless", text: decoding.readVarString(decoder) }),
  7: (decoder, from) =>
    from === "client" ? { type: "Detach" } : { type: "Close", reason: decoding.readVarString(decoder) },
  8: (decoder) => ({ type: "SyncStatus", is_applied: decoding.readVarInt(decoder) === 1 }),
};

/** What one frame means; whatever is left over is shown too. */
const MEANINGS = {
  "y-websocket"(frame) {
    const decoder = decoding.createDecoder(frame);
    return [COMMON[decoding.readVarUint(decoder)](decoder), decoder];
  },
  hocuspocus(frame, from) {
    if (frame.length === 1) return [{ type: frame[0] === 9 ? "Ping" : "Pong" }, null];
    const decoder = decoding.createDecoder(frame);
    const [room, session] = decoding.readVarString(decoder).split("\0");
    const said = HOCUSPOCUS[decoding.readVarUint(decoder)](decoder, from);
    return [{ room, session: session ?? null, ...said }, decoder];
  },
  "y-sweet"(frame) {
    const decoder = decoding.createDecoder(frame);
    const kind = decoding.readVarUint(decoder);
    return [kind === 102 ? { type: "Barrier", token: bytes(decoder) } : COMMON[kind](decoder), decoder];
  },
};

function meaning(dialect, { from, frame }) {
  const [means, decoder] = MEANINGS[dialect](Uint8Array.from(Buffer.from(frame, "hex")), from);
  if (decoder && decoding.hasContent(decoder)) means.trailing = hex(decoding.readTailAsUint8Array(decoder));
  return means;
}

/** Speaks for a server: answers every question with nothing, and Y-Sweet's barrier with itself. */
async function stub(greeting) {
  const http = createServer((_request, response) => {
    const { port } = http.address();
    response.end(JSON.stringify({ url: `ws://127.0.0.1:${port}/d`, docId: ROOM, authorization: "full" }));
  });
  const sockets = new WebSocketServer({ server: http });
  sockets.on("connection", (socket) => {
    for (const frame of greeting) socket.send(Buffer.from(frame, "hex"));
    socket.on("message", (frame) => {
      if (frame[0] === 102) socket.send(frame);
      if (frame[0] === 0 && frame[1] === 0) socket.send(Buffer.from("0001020000", "hex"));
    });
  });
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${http.address().port}`;
}

const SERVERS = {
  "y-websocket": "@y/websocket-server 0.1.5",
  hocuspocus: "@hocuspocus/server 4.7.0",
  "y-sweet": "a stub",
};
const families = { "y-websocket": [], hocuspocus: [], "y-sweet": [] };

function keep(dialect, client) {
  const { name, version } = installed(client.kind);
  for (const frame of client.cable.frames) {
    const all = families[dialect];
    const sender = frame.from === "client" ? `${name} ${version}` : SERVERS[dialect];
    const known = all.find((one) => one.hex === frame.frame && one.from === frame.from);
    if (!known)
      all.push({ from: frame.from, senders: [sender], hex: frame.frame, means: meaning(dialect, frame) });
    else if (!known.senders.includes(sender)) known.senders.push(sender);
  }
}

async function converse(dialect, kind, url, options = {}) {
  const client = open(kind, url, options.room ?? ROOM, {
    keepsFrames: true,
    clientId: 0x1fffffffffffff - 7,
    ...options,
  });
  client.awareness?.setLocalState({ name: "Ada ü 🌍" });
  for (let i = 0; i < 100 && !client.isSynced; i += 1) await setTimeout(20);
  client.document.edit([{ text: "text", at: 0, insert: "wörld 🌍" }]);
  client.document.edit([
    { text: "text", at: 1, remove: 2 },
    { map: "map", key: "k", value: { deep: [1, null] } },
  ]);
  client.document.edit([{ text: "text", at: 0, insert: "x".repeat(300) }]);
  if (kind.startsWith("hocuspocus")) client.provider.sendStateless('{"ü":1}');
  if (kind === "hocuspocus-4") await client.provider.sendToken();
  await setTimeout(300);
  client.awareness?.setLocalState(null);
  await setTimeout(50);
  client.provider.detach?.(); // leaves the document (3 and later)
  await setTimeout(100);
  keep(dialect, client);
  client.destroy();
}

const [yWebsocket, hocuspocus] = process.argv.slice(2);
for (const number of [1, 2, 3, 4])
  await converse("y-websocket", `y-websocket-${number}`, yWebsocket, { room: `room-${number}` });
for (const number of [2, 3, 4]) {
  await converse("hocuspocus", `hocuspocus-${number}`, hocuspocus, {
    room: `${ROOM}${number}`,
    token: "secret ü",
  });
}
await converse("hocuspocus", "hocuspocus-2", hocuspocus); // says no token when it has none
await converse("hocuspocus", "hocuspocus-4", hocuspocus, { room: "x".repeat(200), sessionAwareness: true });
const pinging = open("hocuspocus-4", await stub(["09"]), ROOM, {
  keepsFrames: true,
  clientId: 7,
  withAwareness: false,
});
await setTimeout(300);
keep("hocuspocus", pinging);
await converse("y-sweet", "y-sweet", await stub(["0000" + "0100", "03"]));

for (const [dialect, frames] of Object.entries(families)) {
  const path = new URL(`../vectors/${dialect}.json`, import.meta.url);
  const about = `Frames of the ${dialect} dialect, recorded from stock peers by tests/compat/record.mjs, and what they mean.`;
  writeFileSync(path, `${JSON.stringify({ about, frames }, null, 2)}\n`);
}
process.exit(0);
