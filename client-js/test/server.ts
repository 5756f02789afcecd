/** A server in memory: sockets that a test opens, feeds and closes, and that remember what was said to them. */

import * as encoding from "lib0/encoding";
import * as Y from "yjs";
import type { OpenSocket, Socket } from "../src/connection.ts";
import { type ClientMessage, decode, encode, type ServerMessage } from "../src/protocol.ts";

export class FakeSocket implements Socket {
  binaryType = "";
  protocol = "";
  onopen: ((event: never) => unknown) | null = null;
  onmessage: ((event: never) => unknown) | null = null;
  onclose: ((event: never) => unknown) | null = null;
  readonly said: ServerMessage[] = [];
  closedWith: number | undefined;

  constructor(readonly url: string) {}

  send(frame: Uint8Array<ArrayBuffer>): void {
    this.said.push(decode(frame));
  }

  close(code?: number): void {
    this.closedWith ??= code;
  }

  /** Types of what the client said, in order, awareness aside. */
  get words(): string[] {
    return this.said.map(({ type }) => type).filter((type) => type !== "awareness");
  }

  accept(protocol = "collab.v1"): void {
    this.protocol = protocol;
    this.onopen?.({} as never);
  }

  hear(frame: Uint8Array<ArrayBuffer> | string): void {
    this.onmessage?.({ data: typeof frame === "string" ? frame : frame.buffer } as never);
  }

  drop(code: number, reason = ""): void {
    this.onclose?.({ code, reason } as never);
  }
}

export class FakeServer {
  readonly sockets: FakeSocket[] = [];
  readonly doc = new Y.Doc();

  readonly openSocket: OpenSocket = (url) => {
    const socket = new FakeSocket(url);
    this.sockets.push(socket);
    return socket;
  };

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (last === undefined) throw new Error("nobody has connected");
    return last;
  }

  /** Let the latest socket in and answer as a room does. */
  join({ epoch = "first", state = "live", maxUpdateBytes = 1 << 19 } = {}): FakeSocket {
    const { socket } = this;
    socket.accept();
    socket.hear(hello(epoch, state, 1, maxUpdateBytes));
    socket.hear(encode({ type: "sync-step-1", stateVector: Y.encodeStateVector(this.doc) }));
    socket.hear(encode({ type: "sync-step-2", update: Y.encodeStateAsUpdate(this.doc) }));
    return socket;
  }

  /** Take in every update that the latest socket was sent. */
  apply(): void {
    for (const message of this.socket.said) {
      if (message.type === "update" || message.type === "sync-step-2")
        Y.applyUpdate(this.doc, message.update);
    }
  }
}

export const hello = (epoch: string, state = "live", version = 1, maxUpdateBytes = 1 << 19) =>
  frame(110, (encoder) => {
    encoding.writeVarUint(encoder, version);
    encoding.writeVarString(encoder, epoch);
    encoding.writeVarString(encoder, state);
    encoding.writeVarUint(encoder, maxUpdateBytes);
  });

export const ack = (sequence: number, level = 2) =>
  frame(111, (encoder) => {
    for (const number of [sequence, 1, level]) encoding.writeVarUint(encoder, number);
  });

export const refused = (sequence: number, code: string, reason = "") =>
  frame(112, (encoder) => {
    encoding.writeVarUint(encoder, sequence);
    encoding.writeVarString(encoder, code);
    encoding.writeVarString(encoder, reason);
  });

export const notice = (kind: string, milliseconds = 0) =>
  frame(113, (encoder) => {
    encoding.writeVarString(encoder, kind);
    encoding.writeVarUint(encoder, milliseconds);
  });

export const turnEnded = (id: string, code: string, reason = "") =>
  frame(116, (encoder) => {
    for (const word of [id, code, reason]) encoding.writeVarString(encoder, word);
  });

export const say = (message: ClientMessage) => encode(message);

function frame(number: number, body: (encoder: encoding.Encoder) => void): Uint8Array<ArrayBuffer> {
  return encoding.encode((encoder) => {
    encoding.writeVarUint(encoder, number);
    body(encoder);
  });
}
