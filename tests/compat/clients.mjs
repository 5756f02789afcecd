// Every stock client behind one interface: same words, same conditions, unmodified packages.

import { readFileSync } from "node:fs";
import { YSweetProvider } from "@y-sweet/client";
import * as Y14 from "@y/y";
import { Awareness as Awareness14 } from "@y/protocols/awareness";
import { WebsocketProvider as YWebsocket4 } from "@y/websocket";
import * as hocuspocus4 from "@hocuspocus/provider";
import * as hocuspocus2 from "hocuspocus-provider-2";
import * as hocuspocus3 from "hocuspocus-provider-3";
import * as decoding from "lib0/decoding";
import WebSocket from "ws";
import { Awareness } from "y-protocols/awareness";
import { WebsocketProvider as YWebsocket3 } from "y-websocket";
import { WebsocketProvider as YWebsocket1 } from "y-websocket-1";
import { WebsocketProvider as YWebsocket2 } from "y-websocket-2";
import * as Y13 from "yjs";

/** A short name for each client, with the folder of its package under node_modules. */
export const PACKAGES = {
  "y-websocket-1": "y-websocket-1",
  "y-websocket-2": "y-websocket-2",
  "y-websocket-3": "y-websocket",
  "y-websocket-4": "@y/websocket",
  "hocuspocus-2": "hocuspocus-provider-2",
  "hocuspocus-3": "hocuspocus-provider-3",
  "hocuspocus-4": "@hocuspocus/provider",
  "y-sweet": "@y-sweet/client",
};

/** The published name and version of the package behind a short name, as it is installed. */
export function installed(kind) {
  const manifest = new URL(`node_modules/${PACKAGES[kind]}/package.json`, import.meta.url);
  const { name, version } = JSON.parse(readFileSync(manifest, "utf8"));
  return { name, version };
}

/**
 * The wire of one client: counts its sockets, keeps what went over them and can be pulled out.
 *
 * The clients get `cable.WebSocket` as their WebSocket; nothing else of them is touched.
 */
export class Cable {
  opened = 0;
  closes = [];
  frames = [];
  keepsFrames = false;
  onFrame = null;
  #isOut = false;
  #sockets = new Set();

  /** `origin` is what a browser would say of the page it runs on. */
  constructor({ origin } = {}) {
    const cable = this;
    this.WebSocket = class extends WebSocket {
      constructor(url, protocols) {
        super(cable.#isOut ? "ws://127.0.0.1:1/" : url, protocols, { origin });
        cable.#sockets.add(this);
        super.on("error", () => {}); // a refused connection is told to the client by its close event
        super.on("open", () => {
          cable.opened += 1;
        });
        super.on("message", (frame) => cable.#note("server", new Uint8Array(frame)));
        super.on("close", (code, reason) => {
          cable.#sockets.delete(this);
          cable.closes.push({ code, reason: reason.toString() });
        });
      }

      send(frame, ...rest) {
        if (typeof frame !== "string") cable.#note("client", new Uint8Array(frame));
        return super.send(frame, ...rest);
      }
    };
  }

  #note(from, frame) {
    this.onFrame?.(from, frame);
    if (this.keepsFrames) this.frames.push({ from, frame: Buffer.from(frame).toString("hex") });
  }

  /** Cut every connection without a word and let no new one through until `plug`. */
  pull() {
    this.#isOut = true;
    for (const socket of this.#sockets) socket.terminate();
  }

  plug() {
    this.#isOut = false;
  }

  /** Whether pulled out by now, so that nothing of the server comes through any more. */
  get isDead() {
    return this.#isOut && this.#sockets.size === 0;
  }

  /** The end: the client is told nothing more, so that its retries end too. */
  retire() {
    this.#isOut = true;
    for (const socket of this.#sockets) {
      socket.onclose = null;
      socket.onerror = null;
      socket.terminate();
    }
  }
}

/** A document as the tests edit it, whatever major version of Yjs holds it. */
class Document {
  constructor(major, clientId) {
    this.major = major;
    this.Y = major === 14 ? Y14 : Y13;
    this.doc = new this.Y.Doc();
    if (clientId !== undefined) this.doc.clientID = clientId;
  }

  root(kind, name) {
    if (this.major === 14) return this.doc.get(name);
    return {
      text: () => this.doc.getText(name),
      map: () => this.doc.getMap(name),
      array: () => this.doc.getArray(name),
    }[kind]();
  }

  /** What is at a path inside of the XML that Tiptap's editors share. */
  node(path) {
    return path.reduce((node, at) => node.get(at), this.doc.getXmlFragment("default"));
  }

  /** Nodes as y-prosemirror makes them: `{tag, attributes, children}`, or `[text, marks]`s that are one text. */
  made(node) {
    if (node.texts) {
      const text = new this.Y.XmlText();
      text.applyDelta(node.texts.map(([insert, attributes = {}]) => ({ insert, attributes })));
      return text;
    }
    const element = new this.Y.XmlElement(node.tag);
    for (const [name, value] of Object.entries(node.attributes ?? {})) element.setAttribute(name, value);
    element.insert(
      0,
      (node.children ?? []).map((child) => this.made(child)),
    );
    return element;
  }

  /** One step of an edit: `{path, at, nodes}` or `{path, at, insert}` in XML, `{text, at, insert}`, `{text, at, remove}`, `{map, key, value}`, `{array, push}`, `{array, at, remove}`. */
  edit(steps) {
    this.doc.transact(() => {
      for (const step of steps) {
        if (step.path !== undefined) {
          const node = this.node(step.path);
          if (step.remove) node.delete(step.at, step.remove);
          if (step.insert) node.insert(step.at, step.insert);
          if (step.nodes)
            node.insert(
              step.at,
              step.nodes.map((each) => this.made(each)),
            );
        } else if (step.text !== undefined) {
          const text = this.root("text", step.text);
          const at = step.at < 0 ? text.length : step.at;
          if (step.remove) text.delete(at, step.remove);
          if (step.insert) text.insert(at, step.insert);
        } else if (step.map !== undefined) {
          const map = this.root("map", step.map);
          if (this.major === 14) map.setAttr(step.key, step.value);
          else map.set(step.key, step.value);
        } else if (step.remove) {
          this.root("array", step.array).delete(step.at, step.remove);
        } else {
          this.root("array", step.array).push(step.push);
        }
      }
    });
  }

  /** What the document holds under the three names the tests use. */
  get content() {
    const map = this.root("map", "map");
    return {
      text: this.root("text", "text").toString(),
      map:
        this.major === 14
          ? Object.fromEntries(sorted(map.attrEntries()))
          : Object.fromEntries(sorted(map.entries())),
      array: this.root("array", "array").toArray(),
      xml: this.major === 14 ? "" : this.doc.getXmlFragment("default").toString(),
    };
  }
}

const sorted = (entries) => [...entries].sort(([a], [b]) => (a < b ? -1 : 1));

/**
 * Which of a client's own edits have not come back to it: the way y-websocket's 4.0 release candidates
 * decide on "sync-status". Only those whose ids arrive in a step 2 or an update are confirmed.
 */
class Echo {
  #waiting = Y14.createContentIdsFromUpdate(Y14.encodeStateAsUpdate(new Y14.Doc()));

  sent(update) {
    this.#waiting = Y14.mergeContentIds([this.#waiting, Y14.createContentIdsFromUpdate(update)]);
  }

  received(frame) {
    const decoder = decoding.createDecoder(frame);
    if (decoding.readVarUint(decoder) !== 0 || decoding.readVarUint(decoder) === 0) return;
    const back = Y14.createContentIdsFromUpdate(decoding.readVarUint8Array(decoder));
    this.#waiting = Y14.excludeContentIds(this.#waiting, back);
  }

  get isWaiting() {
    return !this.#waiting.inserts.isEmpty() || !this.#waiting.deletes.isEmpty();
  }
}

/** What all clients have in common; the families below say how theirs is built and asked. */
class Client {
  constructor(
    kind,
    url,
    room,
    { clientId, withAwareness = true, keepsFrames = false, origin, ...options } = {},
  ) {
    this.kind = kind;
    this.url = url;
    this.room = room;
    this.cable = new Cable({ origin });
    this.cable.keepsFrames = keepsFrames;
    this.document = new Document(kind === "y-websocket-4" ? 14 : 13, clientId);
    this.doc = this.document.doc;
    const Kind = kind === "y-websocket-4" ? Awareness14 : Awareness;
    this.awareness = withAwareness ? new Kind(this.doc) : null;
    this.events = [];
    this.options = options;
  }

  note(name, detail) {
    this.events.push(detail === undefined ? [name] : [name, detail]);
  }

  /** Names of everyone this client sees, itself included. */
  get present() {
    return [...(this.awareness?.getStates().values() ?? [])]
      .map((state) => state.name)
      .filter(Boolean)
      .sort();
  }

  get clientId() {
    return this.doc.clientID;
  }

  /** What the client was told it may do: "write", "read", or null when its kind is not told. */
  get scope() {
    return null;
  }

  /** Show this token from now on; a connection that is open is not touched. */
  show(token) {
    this.token = token;
  }

  /** True or false when this client family can tell whether the server has its edits, else null. */
  get isUnsaved() {
    return null;
  }

  connect() {
    return this.provider.connect();
  }

  disconnect() {
    return this.provider.disconnect();
  }

  destroy() {
    this.cable.retire();
    this.provider.destroy();
    this.doc.destroy();
  }
}

/** A browser cannot set headers; the first of these is what the server answers. */
const protocolsOf = (token) => ["y-websocket", `collab.token.${token}`];

class YWebsocketClient extends Client {
  #echo = null;

  constructor(kind, url, room, { watchesEcho = true, token, ...options } = {}) {
    super(kind, url, room, options);
    if (token !== undefined) this.options.protocols = protocolsOf(token);
    const Provider = { 1: YWebsocket1, 2: YWebsocket2, 3: YWebsocket3, 4: YWebsocket4 }[kind.at(-1)];
    if (watchesEcho) this.#watchEcho();
    this.provider = new Provider(`${url.replace("http", "ws")}/ws`, room, this.doc, {
      WebSocketPolyfill: this.cable.WebSocket,
      awareness: this.awareness,
      disableBc: true, // clients of one process must meet at the server, not past it
      ...this.options,
    });
    this.provider.on("status", ({ status }) => this.note("status", status));
    this.provider.on("connection-close", (event) => this.note("close", event?.code ?? null));
    this.provider.on("closed", () => this.note("closed"));
  }

  get isConnected() {
    return this.provider.wsconnected;
  }

  show(token) {
    this.provider.protocols = protocolsOf(token);
  }

  get isSynced() {
    return this.provider.wsconnected && this.provider.synced;
  }

  get isUnsaved() {
    return this.#echo?.isWaiting ?? null;
  }

  #watchEcho() {
    const echo = new Echo();
    this.#echo = echo;
    this.doc.on("update", (update, origin) => {
      if (origin !== this.provider) echo.sent(update);
    });
    this.cable.onFrame = (from, frame) => {
      if (from === "server") echo.received(frame);
    };
  }
}

/** One Hocuspocus socket; several documents may share it. */
export class HocuspocusSocket {
  constructor(kind, url, { origin, ...options } = {}) {
    this.cable = new Cable({ origin });
    const { HocuspocusProviderWebsocket } = HOCUSPOCUS[kind];
    this.socket = new HocuspocusProviderWebsocket({
      url: `${url.replace("http", "ws")}/hocuspocus`,
      WebSocketPolyfill: this.cable.WebSocket,
      delay: 200,
      minDelay: 200,
      maxDelay: 2000,
      ...options,
    });
  }

  destroy() {
    this.cable.retire();
    this.socket.destroy();
  }
}

const HOCUSPOCUS = { "hocuspocus-2": hocuspocus2, "hocuspocus-3": hocuspocus3, "hocuspocus-4": hocuspocus4 };

class HocuspocusClient extends Client {
  constructor(kind, url, room, { shared, token, ...options } = {}) {
    super(kind, url, room, options); // its cable is not used: the socket has one
    this.token = token;
    if (token !== undefined) this.options.token = () => this.token;
    this.isOwner = shared === undefined;
    this.wire = shared ?? new HocuspocusSocket(kind, url, { origin: options.origin });
    this.cable = this.wire.cable;
    this.cable.keepsFrames ||= options.keepsFrames ?? false;
    this.provider = new HOCUSPOCUS[kind].HocuspocusProvider({
      name: room,
      document: this.doc,
      awareness: this.awareness,
      websocketProvider: this.wire.socket,
      broadcast: false, // 2.x only: past the server, as with y-websocket
      onStateless: ({ payload }) => this.note("stateless", payload),
      onAuthenticated: (answer) => this.note("authenticated", answer?.scope ?? null),
      onAuthenticationFailed: ({ reason }) => this.note("authenticationFailed", reason),
      onClose: ({ event }) => this.note("close", event.code),
      onSynced: () => this.note("synced"),
      ...this.options,
    });
    if (kind !== "hocuspocus-2") this.provider.attach(); // 2.x attaches itself
  }

  get isConnected() {
    return this.wire.socket.status === "connected";
  }

  get scope() {
    return { "read-write": "write", readonly: "read" }[this.provider.authorizedScope] ?? null;
  }

  get isSynced() {
    return this.isConnected && this.provider.synced;
  }

  get isUnsaved() {
    return this.provider.hasUnsyncedChanges;
  }

  connect() {
    return this.wire.socket.connect();
  }

  /** Come back to the document; 2.x left it by itself when it was denied. */
  attach() {
    return this.kind === "hocuspocus-2" ? this.provider.connect() : this.provider.attach();
  }

  disconnect() {
    return this.wire.socket.disconnect();
  }

  destroy() {
    if (this.isOwner) this.cable.retire();
    this.provider.destroy();
    if (this.isOwner) this.wire.destroy();
    this.doc.destroy();
  }
}

class YSweetClient extends Client {
  constructor(kind, url, room, { token, ...options } = {}) {
    super(kind, url, room, options);
    this.token = token;
    const endpoint = `${url}/doc/${encodeURIComponent(room)}/auth`;
    this.provider = new YSweetProvider(token === undefined ? endpoint : () => this.#ask(endpoint), room, this.doc, {
      WebSocketPolyfill: this.cable.WebSocket,
      awareness: this.awareness,
      showDebuggerLink: false,
      ...this.options,
    });
    this.provider.on("connection-status", (status) => this.note("status", status));
    this.provider.on("local-changes", (isUnsaved) => this.note("localChanges", isUnsaved));
  }

  /** What an application does that has tokens of its own. */
  async #ask(endpoint) {
    const answer = await fetch(endpoint, { method: "POST", headers: { authorization: `Bearer ${this.token}` } });
    this.note("asked", answer.status);
    if (!answer.ok) throw new Error(`refused: ${answer.status}`);
    return answer.json();
  }

  get scope() {
    return { full: "write", "read-only": "read" }[this.provider.clientToken?.authorization] ?? null;
  }

  get isConnected() {
    return this.provider.status === "connected";
  }

  get isSynced() {
    return this.provider.status === "connected";
  }

  get isUnsaved() {
    return this.provider.hasLocalChanges;
  }

  destroy() {
    this.cable.retire();
    this.provider.disconnect(); // ends its loop of attempts
    this.provider.destroy();
    this.doc.destroy();
  }
}

/** Open a stock client of the given kind on a room of the server at `url`. */
export function open(kind, url, room, options = {}) {
  if (kind.startsWith("hocuspocus")) return new HocuspocusClient(kind, url, room, options);
  if (kind === "y-sweet") return new YSweetClient(kind, url, room, options);
  return new YWebsocketClient(kind, url, room, options);
}
