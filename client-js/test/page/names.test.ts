import { describe, expect, test } from "vitest";
import {
  addressOf,
  checkRoom,
  randomPerson,
  randomRoom,
  roomFrom,
  socketAddress,
} from "../../src/page/names.ts";

const page = new URL("http://127.0.0.1:8000/");

describe("the room in the address", () => {
  test("is the playground when none is named", () => {
    expect(roomFrom(page)).toBe("playground");
    expect(roomFrom(new URL("?room=%20", page))).toBe("playground");
  });

  test.each(["launch notes", "a/b", "Zoë", "50%", "a?b#c", "日本"])(
    "comes back as it went in: %s",
    (room) => {
      expect(roomFrom(new URL(addressOf(room, page)))).toBe(room);
    },
  );

  test("leads to the socket of the same server", () => {
    expect(socketAddress(page)).toBe("ws://127.0.0.1:8000/ws");
    expect(socketAddress(new URL("https://notes.example/?room=x"))).toBe("wss://notes.example/ws");
  });
});

describe("a name for a room", () => {
  test("takes the one form that the server takes", () => {
    expect(checkRoom("  Zoe\u0308 ")).toEqual({ type: "name", name: "Zoë" });
  });

  test.each(["", "   ", "a\u0000b", "a\nb", "a\u2028b", "\ud800", "x".repeat(257), "é".repeat(129)])(
    "is refused in a sentence: %j",
    (typed) => {
      expect(checkRoom(typed)).toMatchObject({ type: "wrong", reason: expect.stringMatching(/\.$/) });
    },
  );

  test("may be 256 bytes long", () => {
    expect(checkRoom("x".repeat(256)).type).toBe("name");
  });
});

test("names made up are fit for rooms and for people", () => {
  for (const random of [() => 0, () => 0.5, () => 0.999999, () => 1]) {
    expect(checkRoom(randomRoom(random)).type).toBe("name");
    expect(randomPerson(random)).toMatch(/^[A-Z][a-z]+ [A-Z][a-z]+$/);
  }
});
