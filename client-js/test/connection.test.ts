import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Closing } from "../src/closing.ts";
import { Connection, LISTEN_MILLISECONDS } from "../src/connection.ts";
import type { ServerMessage } from "../src/protocol.ts";
import { FakeServer } from "./server.ts";
import { bytes } from "./vectors.ts";

const KEEP_ALIVE = bytes("010100");

function connect() {
  const server = new FakeServer();
  const received: ServerMessage[] = [];
  const closings: Closing[] = [];
  const events = {
    opened: vi.fn(),
    received: (message: ServerMessage) => received.push(message),
    closed: (closing: Closing) => closings.push(closing),
  };
  const connection = new Connection("ws://room", events, server.openSocket);
  return { connection, socket: server.socket, opened: events.opened, received, closings };
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("opening", () => {
  test("a server that does not speak collab.v1 is left for good", () => {
    const { socket, opened, closings } = connect();

    socket.accept("");

    expect(opened).not.toHaveBeenCalled();
    expect(closings).toEqual([{ code: 4400, reason: "it does not speak collab.v1" }]);
  });

  test("a socket that does not open in time is given up", () => {
    const { socket, closings } = connect();

    vi.advanceTimersByTime(LISTEN_MILLISECONDS);

    expect(closings.map(({ code }) => code)).toEqual([4000]);
    expect(socket.closedWith).toBe(4000);
  });

  test("nothing is sent before the socket is open", () => {
    const { connection, socket } = connect();

    connection.send({ type: "query-awareness" });

    expect(socket.said).toEqual([]);
  });
});

describe("keeping alive", () => {
  test("a server that talks is not asked", () => {
    const { socket, closings } = connect();
    socket.accept();

    for (let turn = 0; turn < 10; turn++) {
      vi.advanceTimersByTime(LISTEN_MILLISECONDS - 1);
      socket.hear(KEEP_ALIVE);
    }

    expect(socket.said).toEqual([]);
    expect(closings).toEqual([]);
  });

  test("a silent server is asked, and stays as long as it answers", () => {
    const { socket, closings } = connect();
    socket.accept();

    for (let turn = 0; turn < 3; turn++) {
      vi.advanceTimersByTime(2 * LISTEN_MILLISECONDS);
      socket.hear(KEEP_ALIVE);
    }

    expect(socket.words).toEqual(["query-awareness", "query-awareness", "query-awareness"]);
    expect(closings).toEqual([]);
  });

  test("a server that does not answer is dead", () => {
    const { socket, closings } = connect();
    socket.accept();

    vi.advanceTimersByTime(3 * LISTEN_MILLISECONDS);

    expect(closings.map(({ code }) => code)).toEqual([4000]);
  });

  test("a probe asks at once, and once only", () => {
    const { connection, socket, closings } = connect();
    socket.accept();

    connection.probe();
    connection.probe();
    const asked = socket.words;
    vi.advanceTimersByTime(LISTEN_MILLISECONDS);

    expect(asked).toEqual(["query-awareness"]);
    expect(closings).toHaveLength(1);
  });
});

describe("ending", () => {
  test("a malformed frame ends the connection for good", () => {
    const { socket, closings } = connect();
    socket.accept();

    socket.hear(bytes("0002ff"));

    expect(closings.map(({ code }) => code)).toEqual([4400]);
  });

  test("a text frame ends it too", () => {
    const { socket, closings } = connect();
    socket.accept();

    socket.hear("hello");

    expect(closings.map(({ code }) => code)).toEqual([4400]);
  });

  test("the end is told once, and nothing is heard after it", () => {
    const { socket, received, closings } = connect();
    socket.accept();

    socket.drop(1012, "restart");
    socket.drop(1006);
    socket.hear(KEEP_ALIVE);
    vi.advanceTimersByTime(10 * LISTEN_MILLISECONDS);

    expect(closings).toEqual([{ code: 1012, reason: "restart" }]);
    expect(received).toEqual([]);
  });

  test("whoever closes it hears nothing more", () => {
    const { connection, socket, closings } = connect();
    socket.accept();

    connection.close();
    socket.drop(1000);

    expect(socket.closedWith).toBe(1000);
    expect(closings).toEqual([]);
  });
});
