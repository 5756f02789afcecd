// Carries out what a test says, one JSON object a line on stdin, one answer a line on stdout.

import { createInterface } from "node:readline";
import { HocuspocusSocket, PACKAGES, installed, open } from "./clients.mjs";

console.log = console.error; // stdout is for answers only
console.warn = () => {}; // clients complain about every failed attempt to connect

const clients = new Map();
const sockets = new Map();

const named = (names) => [names].flat().map((name) => clients.get(name) ?? fail(`no client ${name}`));

function fail(why) {
  throw new Error(why);
}

function state(client) {
  return {
    ...client.document.content,
    isConnected: client.isConnected,
    isSynced: client.isSynced,
    isUnsaved: client.isUnsaved,
    present: client.present,
    clientId: client.clientId,
    scope: client.scope,
    opened: client.cable.opened,
    closes: client.cable.closes,
    events: client.events,
  };
}

const same = (list) => list.every((one) => JSON.stringify(one) === JSON.stringify(list[0]));

/** The conditions a test may wait for, over all named clients. */
const CONDITIONS = {
  connected: (all) => all.every((client) => client.isConnected),
  disconnected: (all) => all.every((client) => !client.isConnected),
  synced: (all) => all.every((client) => client.isSynced),
  saved: (all) => all.every((client) => client.isUnsaved === false),
  unsaved: (all) => all.every((client) => client.isUnsaved === true),
  dead: (all) => all.every((client) => client.cable.isDead),
  equal: (all) => same(all.map((client) => client.document.content)),
  text: (all, text) => all.every((client) => client.document.content.text === text),
  xml: (all, xml) => all.every((client) => client.document.content.xml === xml),
  scope: (all, scope) => all.every((client) => client.scope === scope),
  present: (all, names) => all.every((client) => same([client.present, [...names].sort()])),
  opened: (all, count) => all.every((client) => client.cable.opened >= count),
  closed: (all, code) => all.every((client) => client.cable.closes.some((close) => close.code === code)),
  anyClosed: (all, code) => all.some((client) => client.cable.closes.some((close) => close.code === code)),
  event: (all, [name, detail]) =>
    all.every((client) =>
      client.events.some((event) => event[0] === name && (detail === undefined || event[1] === detail)),
    ),
};

const ACTIONS = {
  installed: () => Object.fromEntries(Object.keys(PACKAGES).map((kind) => [kind, installed(kind)])),
  socket({ name, kind, url, options }) {
    sockets.set(name, new HocuspocusSocket(kind, url, options));
  },
  open({ name, kind, url, room, options = {}, socket }) {
    if (socket) options.shared = sockets.get(socket) ?? fail(`no socket ${socket}`);
    const client = open(kind, url, room, options);
    clients.set(name, client);
    client.awareness?.setLocalStateField("name", name);
    return { clientId: client.clientId };
  },
  async wait({ names, until, is, for: seconds }) {
    const all = named(names);
    const deadline = performance.now() + seconds * 1000;
    while (!CONDITIONS[until](all, is)) {
      if (performance.now() > deadline)
        fail(`${names} not ${until} after ${seconds} s: ${JSON.stringify(all.map(state))}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  },
  pass: ({ seconds }) => new Promise((resolve) => setTimeout(resolve, seconds * 1000)),
  edit({ names, steps }) {
    for (const client of named(names)) client.document.edit(steps);
  },
  /** Each client its own steps, before any hears of the others. */
  editEach({ steps }) {
    for (const [name, each] of Object.entries(steps)) clients.get(name).document.edit(each);
  },
  state: ({ name }) => state(clients.get(name) ?? fail(`no client ${name}`)),
  frames: ({ name }) => clients.get(name).cable.frames,
  presence({ name, state: local }) {
    clients.get(name).awareness.setLocalState(local);
  },
  stateless: ({ name, text }) => clients.get(name).provider.sendStateless(text),
  token: ({ name }) => clients.get(name).provider.sendToken(),
  show: ({ name, token }) => clients.get(name).show(token),
  detach: ({ name }) => clients.get(name).provider.detach(),
  attach: ({ name }) => clients.get(name).attach(),
  pull({ names }) {
    for (const client of named(names)) client.cable.pull();
  },
  plug({ names }) {
    for (const client of named(names)) client.cable.plug();
  },
  connect({ names }) {
    for (const client of named(names)) client.connect();
  },
  disconnect({ names }) {
    for (const client of named(names)) client.disconnect();
  },
  close({ names = [...clients.keys()] }) {
    for (const client of named(names)) client.destroy();
    for (const name of [names].flat()) clients.delete(name);
    if (clients.size > 0) return;
    for (const socket of sockets.values()) socket.destroy();
    sockets.clear();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...details } = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await ACTIONS[action](details)) ?? null };
  } catch (error) {
    answer = { error: error.stack };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
