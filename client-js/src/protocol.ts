/** `collab.v1`: bytes ↔ messages. The framing of y-websocket, one message to a frame, and messages 110 to 117. */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";

export const SUBPROTOCOL = "collab.v1";

/** The level at which an acknowledgement means: on disk. */
export const LOGGED = 2;

/** What a server takes that does not say how much. */
export const MAX_UPDATE_BYTES = 512 * 1024;

export type RoomState = "live" | "read-only";

/** What the changes of a turn are for; "" is not said. The server adds who makes them. */
export interface About {
  readonly task: string;
  readonly model: string;
  readonly reason: string;
}

/** What a client says. */
export type ClientMessage =
  | { readonly type: "sync-step-1"; readonly stateVector: Uint8Array }
  | { readonly type: "sync-step-2"; readonly update: Uint8Array }
  | { readonly type: "update"; readonly update: Uint8Array }
  | { readonly type: "awareness"; readonly update: Uint8Array }
  | { readonly type: "query-awareness" }
  /** What follows on this connection belongs to this turn; an empty id ends it. */
  | ({ readonly type: "turn"; readonly id: string } & About)
  /** Stop a turn; an empty principal is whoever has it here. */
  | { readonly type: "cancel"; readonly turn: string; readonly principal: string };

/** What a server says; `unknown` is a message of a later version, to be passed over. */
export type ServerMessage =
  | ClientMessage
  | {
      readonly type: "hello";
      readonly version: number;
      readonly epoch: string;
      readonly state: RoomState;
      /** How long one update may be. */
      readonly maxUpdateBytes: number;
    }
  | { readonly type: "ack"; readonly sequence: number; readonly position: number; readonly level: number }
  | { readonly type: "refused"; readonly sequence: number; readonly code: string; readonly reason: string }
  | { readonly type: "notice"; readonly kind: string; readonly retryAfterMilliseconds: number }
  | { readonly type: "turn-ended"; readonly id: string; readonly code: string; readonly reason: string }
  | { readonly type: "unknown"; readonly number: number };

export type Hello = Extract<ServerMessage, { type: "hello" }>;
export type Ack = Extract<ServerMessage, { type: "ack" }>;
export type Refused = Extract<ServerMessage, { type: "refused" }>;
export type Notice = Extract<ServerMessage, { type: "notice" }>;
export type TurnEnded = Extract<ServerMessage, { type: "turn-ended" }>;

/** The frame is not a message of this protocol. */
export class InvalidMessage extends Error {
  override readonly name = "InvalidMessage";
}

const SYNC = 0;
const AWARENESS = 1;
const QUERY_AWARENESS = 3;
const HELLO = 110;
const ACK = 111;
const REFUSED = 112;
const NOTICE = 113;
const TURN = 115;
const TURN_ENDED = 116;
const CANCEL = 117;

const STEP_1 = 0;
const STEP_2 = 1;
const UPDATE = 2;

export function encode(message: ClientMessage): Uint8Array<ArrayBuffer> {
  return encoding.encode((encoder) => {
    switch (message.type) {
      case "sync-step-1":
        return sync(encoder, STEP_1, message.stateVector);
      case "sync-step-2":
        return sync(encoder, STEP_2, message.update);
      case "update":
        return sync(encoder, UPDATE, message.update);
      case "awareness":
        encoding.writeVarUint(encoder, AWARENESS);
        return encoding.writeVarUint8Array(encoder, message.update);
      case "query-awareness":
        return encoding.writeVarUint(encoder, QUERY_AWARENESS);
      case "turn":
        encoding.writeVarUint(encoder, TURN);
        encoding.writeVarString(encoder, message.id);
        return encoding.writeVarString(encoder, about(message));
      case "cancel":
        encoding.writeVarUint(encoder, CANCEL);
        encoding.writeVarString(encoder, message.turn);
        return encoding.writeVarString(encoder, message.principal);
    }
  });
}

/** Throws `InvalidMessage` for what is cut short, too long or not of this protocol. */
export function decode(frame: Uint8Array): ServerMessage {
  const decoder = decoding.createDecoder(frame);
  let message: ServerMessage;
  try {
    message = read(decoder);
  } catch (error) {
    throw new InvalidMessage("the frame is cut short or malformed", { cause: error });
  }
  if (!isOpen(message) && decoding.hasContent(decoder)) {
    throw new InvalidMessage("the frame goes on after its message");
  }
  return message;
}

/** Whether a later version may say more in it. */
function isOpen(message: ServerMessage): boolean {
  return message.type === "unknown" || message.type === "hello";
}

/** What is not said is left out. */
function about({ task, model, reason }: About): string {
  return JSON.stringify({ task, model, reason }, (key, value) =>
    key !== "" && value === "" ? undefined : value,
  );
}

function sync(encoder: encoding.Encoder, step: number, bytes: Uint8Array): void {
  encoding.writeVarUint(encoder, SYNC);
  encoding.writeVarUint(encoder, step);
  encoding.writeVarUint8Array(encoder, bytes);
}

function read(decoder: decoding.Decoder): ServerMessage {
  const number = decoding.readVarUint(decoder);
  switch (number) {
    case SYNC:
      return readSync(decoder);
    case AWARENESS:
      return { type: "awareness", update: decoding.readVarUint8Array(decoder) };
    case QUERY_AWARENESS:
      return { type: "query-awareness" };
    case HELLO:
      return {
        type: "hello",
        version: decoding.readVarUint(decoder),
        epoch: decoding.readVarString(decoder),
        // A state that we do not know lets nobody write who should not.
        state: decoding.readVarString(decoder) === "live" ? "live" : "read-only",
        maxUpdateBytes: decoding.hasContent(decoder) ? decoding.readVarUint(decoder) : MAX_UPDATE_BYTES,
      };
    case ACK:
      return {
        type: "ack",
        sequence: decoding.readVarUint(decoder),
        position: decoding.readVarUint(decoder),
        level: decoding.readVarUint(decoder),
      };
    case REFUSED:
      return {
        type: "refused",
        sequence: decoding.readVarUint(decoder),
        code: decoding.readVarString(decoder),
        reason: decoding.readVarString(decoder),
      };
    case NOTICE:
      return {
        type: "notice",
        kind: decoding.readVarString(decoder),
        retryAfterMilliseconds: decoding.readVarUint(decoder),
      };
    case TURN:
      return { type: "turn", id: decoding.readVarString(decoder), ...readAbout(decoder) };
    case TURN_ENDED:
      return {
        type: "turn-ended",
        id: decoding.readVarString(decoder),
        code: decoding.readVarString(decoder),
        reason: decoding.readVarString(decoder),
      };
    case CANCEL:
      return {
        type: "cancel",
        turn: decoding.readVarString(decoder),
        principal: decoding.readVarString(decoder),
      };
    default:
      return { type: "unknown", number };
  }
}

function readSync(decoder: decoding.Decoder): ServerMessage {
  const step = decoding.readVarUint(decoder);
  const bytes = decoding.readVarUint8Array(decoder);
  switch (step) {
    case STEP_1:
      return { type: "sync-step-1", stateVector: bytes };
    case STEP_2:
      return { type: "sync-step-2", update: bytes };
    case UPDATE:
      return { type: "update", update: bytes };
    default:
      throw new InvalidMessage("no such step of the synchronisation");
  }
}

function readAbout(decoder: decoding.Decoder): About {
  const said: unknown = JSON.parse(decoding.readVarString(decoder));
  if (typeof said !== "object" || said === null) throw new InvalidMessage("a turn is about something");
  const fields = said as Partial<Record<keyof About, unknown>>;
  const word = (value: unknown) => (typeof value === "string" ? value : "");
  return { task: word(fields.task), model: word(fields.model), reason: word(fields.reason) };
}
