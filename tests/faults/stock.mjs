// Stock clients that type tokens, and say what they sent, what they call saved and what they see: node stock.mjs
//
// One JSON object a line in: {open, kind, url, room, prefers, perSecond}, {typing, is}, {close}; one a line out, each with the
// client it is about. What a client calls saved is its own word: Hocuspocus' hasUnsyncedChanges, y-websocket's echo.

import { createInterface } from "node:readline";
import { HocuspocusSocket, open } from "../compat/clients.mjs";

console.log = console.error; // stdout is for what is said here
process.setMaxListeners(0); // each client waits for the end
console.warn = () => {}; // clients complain about every failed attempt to connect

const LOOK_MS = 20;
const VIEW_MS = 25; // for each client: many say less often what they see
const MAX_UNSAVED = 20; // edits on their way; then a typist waits

const typists = new Map();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const any = (count) => Math.floor(Math.random() * count);
const pick = (list) => list[any(list.length)];

class Typist {
  waiting = 0; // edits that it does not call saved yet
  number = 0;
  isTyping = false;
  isNew = true; // something to be seen since the last view
  lastView = 0;
  awaySince = performance.now();
  said = "";

  constructor({ open: name, kind, url, room, prefers, perSecond }) {
    this.name = name;
    this.perSecond = perSecond;
    this.isTyping = perSecond > 0;
    this.client = open(kind, url, room, this.#options(kind, url, prefers));
    this.document = this.client.document;
    this.client.awareness.setLocalState({ name });
    this.client.doc.on("update", () => {
      this.isNew = true;
    });
    say({ client: name, id: this.client.clientId });
    this.ticks = setInterval(() => this.#look(), LOOK_MS);
    this.#typeLater();
  }

  /** The proxy takes the replica that a client prefers from the query, as long as it is up. */
  #options(kind, url, prefers) {
    if (!kind.startsWith("hocuspocus")) return { params: { prefers } };
    const address = `${url.replace("http", "ws")}/hocuspocus?prefers=${prefers}`;
    this.wire = new HocuspocusSocket(kind, url, { url: address });
    return { shared: this.wire };
  }

  #look() {
    const { client } = this;
    const isConnected = client.isSynced;
    if (isConnected && this.awaySince) {
      say({ client: this.name, away: performance.now() - this.awaySince });
      this.awaySince = 0;
    } else if (!isConnected && !this.awaySince) {
      this.awaySince = performance.now();
    }
    if (this.waiting > 0 && client.isUnsaved === false) {
      say({ client: this.name, saved: this.waiting });
      this.waiting = 0;
    }
    const codes = client.cable.closes.map(({ code }) => code);
    const denied = client.events.filter(([event]) => event === "authenticationFailed").map(([, why]) => why);
    const state = { isConnected, opened: client.cable.opened, codes, denied };
    if (JSON.stringify(state) !== this.said) {
      this.said = JSON.stringify(state);
      say({ client: this.name, state });
    }
    if (this.isNew && performance.now() - this.lastView > VIEW_MS * typists.size) this.#show();
  }

  #show() {
    this.isNew = false;
    this.lastView = performance.now();
    const { doc, Y, content } = this.document;
    say({
      client: this.name,
      view: {
        ...content,
        vector: base64(Y.encodeStateVector(doc)),
        state: base64(Y.encodeStateAsUpdate(doc)),
        isWaiting: Boolean(doc.store.pendingStructs ?? doc.store.pendingDs),
      },
      isStill: !this.isTyping,
    });
  }

  typing(is) {
    this.isTyping = is;
    this.isNew = true;
  }

  #typeLater() {
    const wait = (Math.random() * 2000) / Math.max(this.perSecond, 1);
    this.pause = setTimeout(() => {
      if (this.isTyping && this.client.isSynced && this.waiting < MAX_UNSAVED) this.edit();
      this.#typeLater();
    }, wait);
  }

  /** One change, and what it was: added or removed which token. */
  edit() {
    const { document } = this;
    const text = document.root("text", "text");
    const array = document.root("array", "array");
    const map = document.root("map", "map");
    const isNewer = document.major === 14;
    const keys = [...(isNewer ? map.attrKeys() : map.keys())];
    const tokens = [...text.toString().matchAll(/<(.*?)>/g)];
    const token = `${this.name}-${this.number}`;
    let said = ["+", token];
    const chance = any(12);
    document.doc.transact(() => {
      if (chance === 0 && array.length > 0) {
        const at = any(array.length);
        said = ["-", array.toArray()[at]];
        array.delete(at, 1);
      } else if (chance === 1 && keys.length > 0) {
        const key = pick(keys);
        said = ["-", key];
        if (isNewer) map.deleteAttr(key);
        else map.delete(key);
      } else if (chance === 2 && tokens.length > 0) {
        const one = pick(tokens);
        said = ["-", one[1]];
        text.delete(one.index, one[0].length);
      } else if (chance < 6) {
        array.insert(any(array.length + 1), [token]);
      } else if (chance < 8) {
        if (isNewer) map.setAttr(token, 1);
        else map.set(token, 1);
      } else {
        const places = [text.length, ...tokens.map((one) => one.index)];
        text.insert(chance === 8 ? pick(places) : text.length, `<${token}>`);
      }
    });
    if (said[0] === "+") this.number += 1;
    this.waiting += 1;
    say({ client: this.name, sent: said });
  }

  close() {
    clearInterval(this.ticks);
    clearTimeout(this.pause);
    this.client.cable.retire();
    this.client.destroy();
    this.wire?.destroy();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = JSON.parse(line);
  if (said.open) typists.set(said.open, new Typist(said));
  else if (said.typing) typists.get(said.typing)?.typing(said.is);
  else if (said.close) {
    typists.get(said.close)?.close();
    typists.delete(said.close);
  }
}
process.exit(0);
