/** One socket's life: open, keep alive, close. It never comes back; its provider makes the next one. */

import { type Closing, SILENT } from "./closing.ts";
import {
  type ClientMessage,
  decode,
  encode,
  InvalidMessage,
  type ServerMessage,
  SUBPROTOCOL,
} from "./protocol.ts";

/** What a connection needs of a WebSocket. */
export interface Socket {
  binaryType: string;
  readonly protocol: string;
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  send(frame: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type OpenSocket = (url: string, subprotocols: string[]) => Socket;

export interface Events {
  opened(): void;
  received(message: ServerMessage): void;
  /** Comes exactly once, unless this side called `close`. */
  closed(closing: Closing): void;
}

/** Two of these without a word from the server, the second after asking for one, and the connection is dead. */
export const LISTEN_MILLISECONDS = 10_000;

export class Connection {
  readonly #socket: Socket;
  readonly #events: Events;
  #isOpen = false;
  #isOver = false;
  #heard = false;
  #asked = false;
  #timer: ReturnType<typeof setTimeout>;

  constructor(url: string, events: Events, openSocket: OpenSocket) {
    this.#events = events;
    this.#socket = openSocket(url, [SUBPROTOCOL]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = (event: { readonly data: unknown }) => this.#received(event.data);
    this.#socket.onclose = (event: Closing) => this.#end({ code: event.code, reason: event.reason });
    this.#timer = setTimeout(() => this.#listen(), LISTEN_MILLISECONDS);
  }

  /** Does nothing before the connection is open and after it is over: whoever joins again sends all anew. */
  send(message: ClientMessage): void {
    if (this.#isOpen && !this.#isOver) this.#socket.send(encode(message));
  }

  /** Ask the server for a sign of life now, rather than at the next quiet moment. */
  probe(): void {
    if (!this.#isOpen || this.#isOver || this.#asked) return;
    clearTimeout(this.#timer);
    this.#heard = false;
    this.#listen();
  }

  /** No event follows. */
  close(): void {
    this.#finish(1000, "");
  }

  #opened(): void {
    if (this.#isOver) return;
    if (this.#socket.protocol !== SUBPROTOCOL) {
      this.#end({ code: 4400, reason: `it does not speak ${SUBPROTOCOL}` });
      return;
    }
    this.#isOpen = true;
    this.#heard = true;
    this.#events.opened();
  }

  #received(frame: unknown): void {
    if (this.#isOver) return;
    this.#heard = true;
    this.#asked = false;
    let message: ServerMessage;
    try {
      if (!(frame instanceof ArrayBuffer)) throw new InvalidMessage("a text frame");
      message = decode(new Uint8Array(frame));
    } catch (error) {
      if (!(error instanceof InvalidMessage)) throw error;
      this.#end({ code: 4400, reason: error.message });
      return;
    }
    this.#events.received(message);
  }

  // Counted in turns of the timer, not by the clock: the timers of a hidden tab run late, and so does this.
  #listen(): void {
    if (!this.#heard && (this.#asked || !this.#isOpen)) {
      this.#end(SILENT);
      return;
    }
    if (!this.#heard) {
      this.#asked = true;
      this.send({ type: "query-awareness" });
    }
    this.#heard = false;
    this.#timer = setTimeout(() => this.#listen(), LISTEN_MILLISECONDS);
  }

  #end(closing: Closing): void {
    if (this.#isOver) return;
    this.#finish(closing.code >= 4000 ? closing.code : 1000, closing.reason);
    this.#events.closed(closing);
  }

  #finish(code: number, reason: string): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#socket.close(code, reason);
  }
}
