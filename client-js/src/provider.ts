/** Provider: a Y.Doc and its Awareness in step with a room, and the truth about what of it is on disk. */

import * as decoding from "lib0/decoding";
import {
  type Awareness,
  applyAwarenessUpdate,
  encodeAwarenessUpdate,
  removeAwarenessStates,
} from "y-protocols/awareness";
import * as Y from "yjs";
import { delay } from "./backoff.ts";
import { type Closing, describe, isFinal, pauseAfter, SILENT } from "./closing.ts";
import { Connection, type OpenSocket } from "./connection.ts";
import { divide, Indivisible } from "./division.ts";
import {
  type About,
  type Ack,
  type Hello,
  LOGGED,
  MAX_UPDATE_BYTES,
  type Notice,
  type Refused,
  type ServerMessage,
  type TurnEnded,
} from "./protocol.ts";

export type Link =
  | { readonly type: "connecting" }
  | { readonly type: "connected" }
  | { readonly type: "waiting"; readonly attempt: number }
  /** It does not come back by itself. */
  | { readonly type: "stopped"; readonly code: number; readonly reason: string };

/** Who the server says one is. */
export interface User {
  readonly id: string;
  readonly name: string;
}

export interface Status {
  readonly link: Link;
  /** Whether this document has held all of the room's since the link was made. */
  readonly isSynced: boolean;
  /** Local changes that the server has not said are on disk. */
  readonly unsaved: number;
  /** Whether the room takes changes, as far as the server said. */
  readonly isReadOnly: boolean;
  /** What the server knows of us; null where everybody may come. */
  readonly user: User | null;
  /** From sending the last change to hearing that it is on disk. */
  readonly savedAfterMilliseconds: number | null;
  /** The turn that changes made here belong to; null for none. */
  readonly turn: string | null;
  /** How the server ended the last turn that it did not let come to its end; null when it has not. */
  readonly turnEnded: TurnEnded | null;
}

export interface Options {
  /** Where the room is, such as `ws://127.0.0.1:8000/ws/my-room`. */
  readonly url: string;
  readonly doc: Y.Doc;
  readonly awareness: Awareness;
  /** Asked before each connection for a ticket to show; "" is none. Throws `Refusal` when it is of no use to ask again. */
  readonly ticket?: () => Promise<string>;
  readonly openSocket?: OpenSocket;
  readonly random?: () => number;
}

/** The server will not let us in: what it would close a socket with. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly code: number;

  constructor(code: number, reason: string) {
    super(reason);
    this.code = code;
  }
}

/** A step 2 or an update that was sent on this connection and not yet acknowledged. */
interface Sent {
  readonly sequence: number;
  /** How many local changes the server has once it has this. */
  readonly changes: number;
  readonly sentAt: number;
}

interface AwarenessChange {
  readonly added: readonly number[];
  readonly updated: readonly number[];
  readonly removed: readonly number[];
}

const VERSION = 1;
/** As a server closes for what is too large. */
const TOO_LARGE = 1009;
const NOTHING: About = { task: "", model: "", reason: "" };
/** Caret moves within this time leave as one. */
const AWARENESS_MILLISECONDS = 40;
/** Refusals that end by themselves; all others concern what was written. */
const PASSING_REFUSALS: ReadonlySet<string> = new Set([
  "store_unavailable",
  "permission_denied", // of who may only read; a notice says when that ends
  "room_unavailable",
  "busy",
  "draining",
]);

export class Provider {
  readonly doc: Y.Doc;
  readonly awareness: Awareness;

  readonly #url: string;
  readonly #ticket: (() => Promise<string>) | undefined;
  readonly #openSocket: OpenSocket;
  readonly #random: () => number;
  readonly #listeners = new Set<() => void>();

  #connection: Connection | null = null;
  /** Of several requests for a ticket, only the answer to the last one counts. */
  #asking: symbol | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  #askedMilliseconds = 0;
  #epoch = "";
  #maxUpdateBytes = MAX_UPDATE_BYTES;
  #about: About = NOTHING;

  /** The server knows what we lack and we have told it what it lacks: from here on single updates make sense to it. */
  #hasAnswered = false;
  #sequence = 0;
  #sent: Sent[] = [];
  #changes: number;
  #saved = 0;
  #awarenessTimer: ReturnType<typeof setTimeout> | undefined;

  #status: Status = {
    link: { type: "connecting" },
    isSynced: false,
    unsaved: 0,
    isReadOnly: false,
    user: null,
    savedAfterMilliseconds: null,
    turn: null,
    turnEnded: null,
  };

  constructor(options: Options) {
    this.doc = options.doc;
    this.awareness = options.awareness;
    this.#url = options.url;
    this.#ticket = options.ticket;
    this.#openSocket = options.openSocket ?? ((url, subprotocols) => new WebSocket(url, subprotocols));
    this.#random = options.random ?? Math.random;
    this.#changes = this.doc.store.clients.size > 0 ? 1 : 0;
    this.doc.on("update", this.#documentChanged);
    this.awareness.on("update", this.#awarenessChanged);
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.addEventListener?.("pageshow", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  /** The same object until something changes. */
  getSnapshot = (): Status => this.#status;

  /** The listener is called after each change of the status; the answer ends the subscription. */
  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Leave the room for good. */
  destroy(): void {
    removeAwarenessStates(this.awareness, [this.doc.clientID], this);
    this.#flushAwareness();
    this.doc.off("update", this.#documentChanged);
    this.awareness.off("update", this.#awarenessChanged);
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.removeEventListener?.("pageshow", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.stop({ code: 1000, reason: "the room was left" });
    this.#listeners.clear();
  }

  /** End the connection and do not come back until `resume`. What is unsaved stays in the document. */
  stop({ code, reason }: Closing): void {
    this.#stop(reason, code);
  }

  /** Go on after the provider has stopped, with whatever `ticket` brings now. */
  resume(): void {
    if (this.#status.link.type !== "stopped") return;
    this.#attempt = 0;
    this.#connect();
  }

  /**
   * Changes from here on belong to this turn: credited, stopped and taken back together. It goes on after a reconnect.
   * Once the server has ended it, as `turnEnded` says, changes are refused until another begins or `endTurn` is called.
   */
  beginTurn(id: string, about: Partial<About> = {}): void {
    this.#about = { ...NOTHING, ...about };
    this.#report({ turn: id, turnEnded: null });
    this.#connection?.send({ type: "turn", id, ...this.#about });
  }

  /** Changes from here on belong to no turn. */
  endTurn(): void {
    this.#report({ turn: null, turnEnded: null });
    this.#connection?.send({ type: "turn", id: "", ...NOTHING });
  }

  /** Ask for the end of anybody's turn; without a principal of whoever has it here. Lost when there is no connection. */
  cancel(turn: string, principal = ""): void {
    this.#connection?.send({ type: "cancel", turn, principal });
  }

  #connect(): void {
    this.#report({ link: { type: "connecting" } });
    if (this.#ticket === undefined) return this.#open("");
    const asking = Symbol("asking");
    this.#asking = asking;
    this.#ticket().then(
      (ticket) => {
        if (this.#asking === asking) this.#open(ticket);
      },
      (error: unknown) => {
        if (this.#asking !== asking) return;
        if (error instanceof Refusal) this.#closed({ code: error.code, reason: error.message });
        else this.#closed(SILENT);
      },
    );
  }

  #open(ticket: string): void {
    this.#asking = undefined;
    this.#connection = new Connection(
      ticket === "" ? this.#url : `${this.#url}?ticket=${encodeURIComponent(ticket)}`,
      {
        opened: () => this.#opened(),
        received: (message) => this.#received(message),
        closed: (closing) => this.#closed(closing),
      },
      this.#openSocket,
    );
  }

  #opened(): void {
    const { turn } = this.#status;
    if (turn !== null) this.#connection?.send({ type: "turn", id: turn, ...this.#about });
    this.#connection?.send({ type: "sync-step-1", stateVector: Y.encodeStateVector(this.doc) });
    this.#renewAwareness();
    this.#flushAwareness();
  }

  #closed(closing: Closing): void {
    if (isFinal(closing.code)) return this.#stop(describe(closing), closing.code);
    this.#forgetConnection();
    this.#report({ link: { type: "waiting", attempt: this.#attempt }, isSynced: false });
    this.#retry = setTimeout(
      () => this.#connect(),
      pauseAfter(closing) + delay(this.#attempt, this.#askedMilliseconds, this.#random),
    );
    this.#attempt += 1;
    this.#askedMilliseconds = 0;
  }

  #stop(reason: string, code = 4400): void {
    clearTimeout(this.#retry);
    this.#connection?.close();
    this.#forgetConnection();
    this.#report({ link: { type: "stopped", code, reason }, isSynced: false });
  }

  /** Join anew: the exchange of state vectors finds whatever the server did not take. */
  #rejoin(): void {
    clearTimeout(this.#retry);
    this.#connection?.close();
    this.#forgetConnection();
    this.#report({ isSynced: false });
    this.#connect();
  }

  #forgetConnection(): void {
    clearTimeout(this.#awarenessTimer);
    this.#awarenessTimer = undefined;
    this.#asking = undefined;
    this.#connection = null;
    this.#hasAnswered = false;
    this.#sequence = 0;
    this.#sent = [];
    const others = [...this.awareness.meta.keys()].filter((client) => client !== this.doc.clientID);
    removeAwarenessStates(this.awareness, others, this);
    // Whoever stays is told of again with the same clock, which would count as old news.
    for (const client of others) this.awareness.meta.delete(client);
  }

  #received(message: ServerMessage): void {
    switch (message.type) {
      case "hello":
        return this.#greeted(message);
      case "sync-step-1":
        this.#hasAnswered = true;
        return this.#sendUpdate("sync-step-2", Y.encodeStateAsUpdate(this.doc, message.stateVector));
      case "sync-step-2":
        Y.applyUpdate(this.doc, message.update, this);
        this.#attempt = 0;
        return this.#report({ isSynced: true });
      case "update":
        return Y.applyUpdate(this.doc, message.update, this);
      case "awareness":
        this.#recognise(message.update);
        return applyAwarenessUpdate(this.awareness, message.update, this);
      case "ack":
        return this.#acknowledged(message);
      case "refused":
        return this.#refused(message);
      case "notice":
        return this.#noticed(message);
      case "turn-ended":
        if (message.id === this.#status.turn) this.#report({ turn: null, turnEnded: message });
    }
  }

  #greeted(hello: Hello): void {
    if (hello.version !== VERSION)
      return this.#stop("the server speaks a later version than this page: reload it");
    // The room was made anew from something else: our content would stand in it twice.
    if (this.#epoch !== "" && hello.epoch !== "" && hello.epoch !== this.#epoch) {
      return this.#stop("the room was started anew while this window was away: reload it");
    }
    this.#epoch = hello.epoch;
    this.#maxUpdateBytes = hello.maxUpdateBytes;
    this.#report({ link: { type: "connected" }, isReadOnly: hello.state === "read-only" });
  }

  /** Our own presence comes back with what the server has put into it. */
  #recognise(update: Uint8Array): void {
    const state = stateIn(update, this.doc.clientID);
    const user = isRecord(state) && isRecord(state.user) ? state.user : {};
    if (typeof user.id !== "string" || user.id === this.#status.user?.id) return;
    this.#report({ user: { id: user.id, name: typeof user.name === "string" ? user.name : user.id } });
  }

  #acknowledged(ack: Ack): void {
    if (ack.level < LOGGED) return;
    const covered = this.#sent.filter((sent) => sent.sequence <= ack.sequence);
    const last = covered.at(-1);
    if (last === undefined) return;
    this.#sent = this.#sent.slice(covered.length);
    if (last.changes <= this.#saved) return;
    this.#saved = last.changes;
    this.#report({ savedAfterMilliseconds: performance.now() - last.sentAt });
  }

  #refused(refused: Refused): void {
    // Neither this one nor what builds on it is in the room, whatever is acknowledged later.
    this.#sent = this.#sent.filter((sent) => sent.sequence < refused.sequence);
    this.#hasAnswered = false;
    if (PASSING_REFUSALS.has(refused.code)) return this.#report({ isReadOnly: true });
    this.#stop(`the server refused a change: ${refused.reason || refused.code}`);
  }

  #noticed(notice: Notice): void {
    switch (notice.kind) {
      case "drain":
        this.#askedMilliseconds = notice.retryAfterMilliseconds;
        return;
      case "read-only":
        return this.#report({ isReadOnly: true });
      case "writable":
        this.#report({ isReadOnly: false });
        if (this.#status.unsaved > 0) this.#rejoin();
    }
  }

  /**
   * The answer to a step 1 is sent even when it is empty: its acknowledgement covers what an earlier link carried. What is
   * longer than the server takes at once goes in parts, and is saved with the last of them.
   */
  #sendUpdate(type: "sync-step-2" | "update", whole: Uint8Array): void {
    if (this.#connection === null || this.#status.isReadOnly) return;
    let parts: Uint8Array[];
    try {
      parts = divide(whole, this.#maxUpdateBytes);
    } catch (error) {
      if (!(error instanceof Indivisible)) throw error;
      return this.#stop(describe({ code: TOO_LARGE, reason: error.message }), TOO_LARGE);
    }
    const before = this.#sent.at(-1)?.changes ?? 0;
    for (const [number, update] of parts.entries()) {
      const changes = number === parts.length - 1 ? this.#changes : before;
      this.#sequence += 1;
      this.#sent.push({ sequence: this.#sequence, changes, sentAt: performance.now() });
      this.#connection.send({ type, update });
    }
  }

  readonly #documentChanged = (update: Uint8Array, origin: unknown): void => {
    if (origin === this) return;
    this.#changes += 1;
    if (this.#hasAnswered) this.#sendUpdate("update", update);
    this.#report({});
  };

  readonly #awarenessChanged = ({ added, updated, removed }: AwarenessChange): void => {
    const isOwn = [...added, ...updated, ...removed].includes(this.doc.clientID);
    if (!isOwn || this.#awarenessTimer !== undefined) return;
    this.#awarenessTimer = setTimeout(() => this.#flushAwareness(), AWARENESS_MILLISECONDS);
  };

  /** With a clock that is higher than the one that the others last saw, or saw go. */
  #renewAwareness(): void {
    this.awareness.setLocalState(this.awareness.getLocalState());
  }

  #flushAwareness(): void {
    clearTimeout(this.#awarenessTimer);
    this.#awarenessTimer = undefined;
    if (!this.awareness.meta.has(this.doc.clientID)) return;
    const update = encodeAwarenessUpdate(this.awareness, [this.doc.clientID]);
    this.#connection?.send({ type: "awareness", update });
  }

  readonly #wake = (): void => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#status.link.type === "waiting") {
      clearTimeout(this.#retry);
      this.#connect();
    } else {
      this.#connection?.probe();
      // A hidden tab's timers run late, so the others may have taken us for gone.
      this.#renewAwareness();
    }
  };

  #report(change: Partial<Status>): void {
    this.#status = { ...this.#status, ...change, unsaved: this.#changes - this.#saved };
    for (const listener of this.#listeners) listener();
  }
}

/** The state of one client in a presence update. */
function stateIn(update: Uint8Array, client: number): unknown {
  const decoder = decoding.createDecoder(update);
  for (let left = decoding.readVarUint(decoder); left > 0; left -= 1) {
    const one = decoding.readVarUint(decoder);
    decoding.readVarUint(decoder);
    const state = decoding.readVarString(decoder);
    if (one === client) return JSON.parse(state);
  }
  return undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
