import { describe, expect, test } from "vitest";
import { type ClientMessage, decode, encode, InvalidMessage, type ServerMessage } from "../src/protocol.ts";
import { bytes, hex, type Vector, vectors } from "./vectors.ts";

/** Bytes stand in the vectors as hexadecimal. */
function plain(message: ServerMessage): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(message).map(([key, value]) => [key, value instanceof Uint8Array ? hex(value) : value]),
  );
}

function written({ message }: Vector): ClientMessage {
  const { type, ...fields } = message;
  const isBinary = (key: string) => key === "update" || key === "stateVector";
  const body = Object.entries(fields).map(([key, value]) => [
    key,
    isBinary(key) ? bytes(String(value)) : value,
  ]);
  return { type, ...Object.fromEntries(body) } as ClientMessage;
}

describe("the vectors", () => {
  test.each(vectors.messages)("read: $meaning", (vector) => {
    const message = decode(bytes(vector.frame));

    expect(plain(message)).toEqual(vector.message);
  });

  test.each(vectors.messages.filter(({ from }) => from !== "server"))("write: $meaning", (vector) => {
    const frame = encode(written(vector));

    expect(hex(frame)).toBe(vector.frame);
  });

  test.each(vectors.malformed)("refuse: $meaning", ({ frame }) => {
    expect(() => decode(bytes(frame))).toThrow(InvalidMessage);
  });
});

describe("hostile frames", () => {
  // What an earlier server leaves out of a hello, and a later one adds to it, is no fault.
  const known = vectors.messages
    .filter(({ message }) => message.type !== "hello")
    .map(({ frame }) => bytes(frame));

  test("every message that is cut short is refused", () => {
    for (const frame of known) {
      for (let length = 0; length < frame.length; length++) {
        expect(() => decode(frame.slice(0, length))).toThrow(InvalidMessage);
      }
    }
  });

  test("every message with something behind it is refused", () => {
    for (const frame of known) {
      expect(() => decode(Uint8Array.of(...frame, 0))).toThrow(InvalidMessage);
    }
  });

  test("random bytes are a message or refused, never another error", () => {
    let seed = 1;
    const random = () => {
      seed = (seed * 48271) % 2147483647;
      return seed % 256;
    };

    for (let round = 0; round < 20_000; round++) {
      const frame = Uint8Array.from({ length: random() % 24 }, random);
      try {
        decode(frame);
      } catch (error) {
        expect(error).toBeInstanceOf(InvalidMessage);
      }
    }
  });

  test("a message of a later version is passed over, whatever its body", () => {
    const message = decode(bytes("7f0102ff"));

    expect(message).toEqual({ type: "unknown", number: 127 });
  });

  test.each(["null", "[", "7", '"x"'])("a turn that is about %s is refused", (about) => {
    const frame = Buffer.concat([Buffer.from([115, 1, 0x74, about.length]), Buffer.from(about)]);

    expect(() => decode(frame)).toThrow(InvalidMessage);
  });

  test("a turn takes from what it is about what it knows, and only words", () => {
    const about = '{"task":7,"reason":"why","colour":"red"}';
    const frame = Buffer.concat([Buffer.from([115, 1, 0x74, about.length]), Buffer.from(about)]);

    expect(decode(frame)).toEqual({ type: "turn", id: "t", task: "", model: "", reason: "why" });
  });

  test("a hello of a later version may say more", () => {
    const message = decode(bytes("6e010165046c69766507ff"));

    expect(message).toMatchObject({ type: "hello", epoch: "e", maxUpdateBytes: 7 });
  });

  test("a room state of a later version lets nobody write", () => {
    const message = decode(bytes("6e010004686f6c64"));

    expect(message).toMatchObject({ type: "hello", state: "read-only" });
  });
});
