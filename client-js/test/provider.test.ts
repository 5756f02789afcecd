import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Awareness, encodeAwarenessUpdate } from "y-protocols/awareness";
import * as Y from "yjs";
import { Provider, Refusal } from "../src/provider.ts";
import { ack, FakeServer, hello, notice, refused, say, turnEnded } from "./server.ts";

let alive: Provider[] = [];

function provide({ content = "" } = {}) {
  const server = new FakeServer();
  const doc = new Y.Doc();
  if (content !== "") doc.getText("text").insert(0, content);
  const awareness = new Awareness(doc);
  const provider = new Provider({
    url: "ws://room",
    doc,
    awareness,
    openSocket: server.openSocket,
    random: () => 1,
  });
  alive.push(provider);
  const type = (words: string) => doc.getText("text").insert(doc.getText("text").length, words);
  return { server, doc, awareness, provider, type, status: provider.getSnapshot };
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  for (const provider of alive) {
    provider.destroy();
    provider.awareness.destroy();
  }
  alive = [];
  vi.useRealTimers();
});

describe("signing in", () => {
  function provideWith(ticket: () => Promise<string>) {
    const server = new FakeServer();
    const doc = new Y.Doc();
    const provider = new Provider({
      url: "ws://room",
      doc,
      awareness: new Awareness(doc),
      ticket,
      openSocket: server.openSocket,
      random: () => 1,
    });
    alive.push(provider);
    return { server, doc, provider, status: provider.getSnapshot };
  }
  const soon = () => vi.advanceTimersByTimeAsync(0);

  test("shows another ticket at each connection", async () => {
    let count = 0;
    const { server } = provideWith(async () => `tk_${++count}`);
    await soon();

    server.join().drop(1006);
    await vi.advanceTimersByTimeAsync(60_000);

    expect(server.sockets.slice(0, 2).map(({ url }) => url)).toEqual([
      "ws://room?ticket=tk_1",
      "ws://room?ticket=tk_2",
    ]);
  });

  test("ends where a ticket is refused, and goes on when it is asked to", async () => {
    let isKnown = false;
    const { server, provider, status } = provideWith(async () => {
      if (!isKnown) throw new Refusal(4401, "no such token");
      return "";
    });
    await soon();

    const before = status().link;
    isKnown = true;
    provider.resume();
    await soon();
    server.join();

    expect(before).toEqual({ type: "stopped", code: 4401, reason: "you are not signed in (no such token)" });
    expect(status().link).toEqual({ type: "connected" });
    expect(server.socket.url).toBe("ws://room");
  });

  test("tries again when there is nobody to ask for a ticket", async () => {
    const { status } = provideWith(async () => {
      throw new TypeError("Failed to fetch");
    });

    await soon();

    expect(status().link).toEqual({ type: "waiting", attempt: 0 });
  });

  test("opens nothing for a ticket that comes after the room was left", async () => {
    let answer: (ticket: string) => void = () => {};
    const { server, provider } = provideWith(
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );

    provider.destroy();
    answer("tk_late");
    await soon();

    expect(server.sockets).toEqual([]);
  });

  test("learns who it is from its own presence, as the server sends it back", async () => {
    const { server, doc, status } = provideWith(async () => "tk_1");
    await soon();
    server.join();
    const echo = new Awareness(new Y.Doc());
    echo.clientID = doc.clientID;
    echo.setLocalState({ user: { id: "ada", name: "Ada L.", color: "red" } });

    server.socket.hear(say({ type: "awareness", update: encodeAwarenessUpdate(echo, [doc.clientID]) }));
    echo.destroy();

    expect(status().user).toEqual({ id: "ada", name: "Ada L." });
  });
});

describe("joining", () => {
  test("asks for what it lacks, and is synced when it has it", () => {
    const { server, doc, status } = provide();
    server.doc.getText("text").insert(0, "already here");

    const before = status();
    server.join();

    expect(before).toMatchObject({ link: { type: "connecting" }, isSynced: false });
    expect(status()).toMatchObject({ link: { type: "connected" }, isSynced: true, unsaved: 0 });
    expect(doc.getText("text").toString()).toBe("already here");
    expect(server.socket.words).toEqual(["sync-step-1", "sync-step-2"]);
  });

  test("hands over what the document held before, and calls it unsaved until then", () => {
    const { server, status } = provide({ content: "from before" });

    server.join();
    const before = status().unsaved;
    server.apply();
    server.socket.hear(ack(1));

    expect(before).toBe(1);
    expect(server.doc.getText("text").toString()).toBe("from before");
    expect(status().unsaved).toBe(0);
  });

  test("no update leaves before the server's step 1 is answered, for it could not be understood", () => {
    const { server, type, status } = provide();
    server.socket.accept();
    server.socket.hear(hello("first"));

    type("early");
    const before = server.socket.words;
    server.socket.hear(say({ type: "sync-step-1", stateVector: Y.encodeStateVector(server.doc) }));
    server.apply();

    expect(before).toEqual(["sync-step-1"]);
    expect(server.doc.getText("text").toString()).toBe("early");
    expect(status().unsaved).toBe(1);
  });

  test("the name of a new room's history is known once it has begun, and another one is not merged into", () => {
    const { server, status } = provide();
    server.join({ epoch: "" });

    server.socket.hear(hello("first"));
    server.socket.drop(1012);
    vi.runOnlyPendingTimers();
    server.join({ epoch: "second" });

    expect(status().link.type).toBe("stopped");
  });

  test("a later version of the protocol ends it", () => {
    const { server, status } = provide();
    server.socket.accept();

    server.socket.hear(hello("first", "live", 2));

    expect(status().link.type).toBe("stopped");
  });
});

describe("saved", () => {
  test("means acknowledged, not sent and not echoed", () => {
    const { server, type, status } = provide();
    server.join();

    type("a");
    const sent = status().unsaved;
    const own = server.socket.said.at(-1);
    if (own?.type === "update") server.socket.hear(say(own));
    const echoed = status().unsaved;
    server.socket.hear(ack(2));

    expect([sent, echoed, status().unsaved]).toEqual([1, 1, 0]);
  });

  test("counts what the acknowledgement covers, and no more", () => {
    const { server, type, status } = provide();
    server.join();

    for (const letter of "abcd") type(letter);
    server.socket.hear(ack(3));

    expect(status().unsaved).toBe(2);
  });

  test("does not follow from an acknowledgement below the log", () => {
    const { server, type, status } = provide();
    server.join();

    type("a");
    server.socket.hear(ack(2, 1));

    expect(status().unsaved).toBe(1);
  });

  test("does not follow from an acknowledgement of nothing we said", () => {
    const { server, type, status } = provide();
    server.join();

    server.socket.hear(ack(0));
    type("a");
    server.socket.hear(ack(1));

    expect(status().unsaved).toBe(1);
  });

  test("tells how long it took", () => {
    const { server, type, status } = provide();
    server.join();

    type("a");
    vi.advanceTimersByTime(7);
    server.socket.hear(ack(2));

    expect(status().savedAfterMilliseconds).toBe(7);
  });

  test("changes of others are not ours to save", () => {
    const { server, status } = provide();
    server.join();
    server.doc.getText("text").insert(0, "theirs");

    server.socket.hear(say({ type: "update", update: Y.encodeStateAsUpdate(server.doc) }));

    expect(status().unsaved).toBe(0);
  });
});

describe("what is longer than the server takes at once", () => {
  const words = "one two three four five six ".repeat(20);

  test("goes in parts, and is saved with the last of them", () => {
    const { server, status } = provide({ content: words });

    server.join({ maxUpdateBytes: 200 });
    server.apply();
    const parts = server.socket.words.length - 1;
    server.socket.hear(ack(parts - 1));
    const before = status().unsaved;
    server.socket.hear(ack(parts));

    expect(parts).toBeGreaterThan(2);
    expect(server.doc.getText("text").toString()).toBe(words);
    expect([before, status().unsaved]).toEqual([1, 0]);
  });

  test("goes in parts while others of our changes wait to be saved", () => {
    const { server, type, status } = provide();
    server.join({ maxUpdateBytes: 200 });

    type("a");
    type(words);
    type("z");
    server.apply();
    server.socket.hear(ack(3));
    const before = status().unsaved;
    server.socket.hear(ack(server.socket.words.length - 1));

    expect(server.doc.getText("text").toString()).toBe(`a${words}z`);
    expect([before, status().unsaved]).toEqual([2, 0]);
  });

  test("is told of when it cannot be cut, and nothing of it leaves", () => {
    const { server, doc, status } = provide();
    server.join({ maxUpdateBytes: 200 });

    doc.getMap("files").set("picture", new Uint8Array(300));

    expect(server.socket.words).toEqual(["sync-step-1", "sync-step-2"]);
    expect(status().link).toEqual({
      type: "stopped",
      code: 1009,
      reason: expect.stringContaining(
        "one value takes more than the 200 bytes that the server takes at once",
      ),
    });
    expect(status().unsaved).toBe(1);
  });
});

describe("losing the link", () => {
  test("keeps what is typed, and hands it over on return", () => {
    const { server, type, status } = provide();
    server.join();

    server.socket.drop(1006);
    type("a");
    type("b");
    const away = status();
    vi.advanceTimersByTime(250);
    server.join();
    server.apply();
    const back = status().unsaved;
    server.socket.hear(ack(1));

    expect(away).toMatchObject({ link: { type: "waiting" }, isSynced: false, unsaved: 2 });
    expect(server.doc.getText("text").toString()).toBe("ab");
    expect(back).toBe(2);
    expect(status().unsaved).toBe(0);
  });

  test("what was sent and not acknowledged is unsaved until the new link acknowledges", () => {
    const { server, type, status } = provide();
    server.join();
    type("a");
    server.apply();

    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join();
    const before = status().unsaved;
    server.socket.hear(ack(1));

    expect(before).toBe(1);
    expect(status().unsaved).toBe(0);
  });

  test("tries again later and later, and soon again after a success", () => {
    const { server } = provide();
    const waits = [250, 500, 1000];

    for (const wait of waits) {
      server.socket.drop(1006);
      const tried = server.sockets.length;
      vi.advanceTimersByTime(wait - 1);
      expect(server.sockets).toHaveLength(tried);
      vi.advanceTimersByTime(1);
      expect(server.sockets).toHaveLength(tried + 1);
    }
    server.join();
    server.socket.drop(1006);
    vi.advanceTimersByTime(250);

    expect(server.sockets).toHaveLength(5);
  });

  test("a drain is waited out as long as the server asked", () => {
    const { server } = provide();
    server.join();

    server.socket.hear(notice("drain", 8000));
    server.socket.drop(1012);
    vi.advanceTimersByTime(7999);
    const before = server.sockets.length;
    vi.advanceTimersByTime(1);

    expect(before).toBe(1);
    expect(server.sockets).toHaveLength(2);
  });

  test("a code of the 4400s ends it, with the reason", () => {
    const { server, status } = provide();
    server.join();

    server.socket.drop(4404);
    vi.advanceTimersByTime(60_000);

    expect(status().link).toEqual({ type: "stopped", code: 4404, reason: "this room was deleted" });
    expect(server.sockets).toHaveLength(1);
  });

  test("a room that was made anew is not given the old content", () => {
    const { server, type, status } = provide();
    server.join({ epoch: "first" });
    type("old");

    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join({ epoch: "second" });

    expect(status().link.type).toBe("stopped");
    expect(server.socket.words).toEqual(["sync-step-1"]);
  });

  test("a room that had no epoch yet may have one now", () => {
    const { server, status } = provide();
    server.join({ epoch: "" });

    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join({ epoch: "first" });

    expect(status().link.type).toBe("connected");
  });
});

describe("a room that takes no changes", () => {
  test("is sent none, and all of them when it takes them again", () => {
    const { server, type, status } = provide();
    server.join();

    server.socket.hear(notice("read-only"));
    type("meanwhile");
    const held = { ...status(), words: server.socket.words };
    server.socket.hear(notice("writable"));
    server.join();
    server.apply();
    server.socket.hear(ack(1));

    expect(held).toMatchObject({ isReadOnly: true, unsaved: 1, words: ["sync-step-1", "sync-step-2"] });
    expect(server.doc.getText("text").toString()).toBe("meanwhile");
    expect(status()).toMatchObject({ isReadOnly: false, unsaved: 0 });
  });

  test("is not left for nothing when there is nothing to hand over", () => {
    const { server, type, status } = provide();
    server.join({ state: "read-only" });

    server.socket.hear(notice("writable"));
    type("a");
    server.apply();

    expect(server.sockets).toHaveLength(1);
    expect(server.doc.getText("text").toString()).toBe("a");
    expect(status().isReadOnly).toBe(false);
  });

  test.each(["store_unavailable", "permission_denied"])(
    "a refusal that will pass keeps the change: %s",
    (code) => {
      const { server, type, status } = provide();
      server.join();

      type("a");
      server.socket.hear(refused(2, code, "not now"));
      type("b");
      server.socket.hear(ack(2));
      const refusedStatus = status();
      server.socket.hear(notice("writable"));
      server.join();
      server.apply();
      server.socket.hear(ack(1));

      expect(refusedStatus).toMatchObject({ isReadOnly: true, unsaved: 2 });
      expect(server.doc.getText("text").toString()).toBe("ab");
      expect(status().unsaved).toBe(0);
    },
  );

  test("a refusal of the change itself ends it, and nothing is called saved", () => {
    const { server, type, status } = provide();
    server.join();

    type("a");
    server.socket.hear(refused(2, "too_large", "the document is full"));
    server.socket.hear(ack(2));

    expect(status()).toMatchObject({
      link: { type: "stopped", code: 4400, reason: "the server refused a change: the document is full" },
      unsaved: 1,
    });
  });
});

describe("presence", () => {
  test("is announced on joining and on every return", () => {
    const { server, awareness } = provide();
    awareness.setLocalStateField("user", { name: "Ada" });

    server.join();
    const first = server.socket.said.filter(({ type }) => type === "awareness").length;
    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join();

    expect(first).toBe(1);
    expect(server.socket.said.filter(({ type }) => type === "awareness")).toHaveLength(1);
  });

  test("moves that follow each other closely leave as one", () => {
    const { server, awareness } = provide();
    server.join();
    const before = server.socket.said.length;

    for (let at = 0; at < 20; at++) awareness.setLocalStateField("cursor", at);
    vi.advanceTimersByTime(40);

    expect(server.socket.said.slice(before)).toHaveLength(1);
  });

  test("of the others ends with the link", () => {
    const { server, awareness } = provide();
    const other = new Awareness(new Y.Doc());
    other.setLocalStateField("user", { name: "Grace" });
    server.join();
    server.socket.hear(say({ type: "awareness", update: encodeAwarenessUpdate(other, [other.clientID]) }));
    const together = awareness.getStates().size;

    server.socket.drop(1006);
    other.destroy();

    expect(together).toBe(2);
    expect([...awareness.getStates().keys()]).toEqual([awareness.clientID]);
  });

  test("of those who stayed is back with the link, though they said nothing new", () => {
    const { server, awareness } = provide();
    const other = new Awareness(new Y.Doc());
    other.setLocalStateField("user", { name: "Grace" });
    const greeting = say({ type: "awareness", update: encodeAwarenessUpdate(other, [other.clientID]) });
    server.join().hear(greeting);

    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join().hear(greeting);
    other.destroy();

    expect(awareness.getStates().get(other.clientID)).toEqual({ user: { name: "Grace" } });
  });

  test("is announced on return with a higher clock, for the others saw it go", () => {
    const { server, awareness } = provide();
    server.join();
    const before = awareness.meta.get(awareness.clientID)?.clock ?? 0;

    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join();

    expect(awareness.meta.get(awareness.clientID)?.clock).toBeGreaterThan(before);
  });

  test("is taken back on leaving", () => {
    const { server, provider, awareness } = provide();
    server.join();

    provider.destroy();

    expect(server.socket.said.at(-1)?.type).toBe("awareness");
    expect(awareness.getLocalState()).toBeNull();
    expect(server.socket.closedWith).toBe(1000);
  });
});

describe("waking up", () => {
  function wake(provider: () => ReturnType<typeof provide>) {
    const window = new EventTarget();
    vi.stubGlobal("addEventListener", window.addEventListener.bind(window));
    vi.stubGlobal("removeEventListener", window.removeEventListener.bind(window));
    const made = provider();
    return { ...made, wakeUp: () => window.dispatchEvent(new Event("online")) };
  }

  afterEach(() => {
    vi.unstubAllGlobals();
  });

  test("ends the wait at once", () => {
    const { server, wakeUp } = wake(provide);
    server.join();
    server.socket.drop(1006);

    wakeUp();

    expect(server.sockets).toHaveLength(2);
  });

  test("asks a link that seems alive whether it is", () => {
    const { server, wakeUp } = wake(provide);
    server.join();

    wakeUp();

    expect(server.socket.words.at(-1)).toBe("query-awareness");
  });
});

test("a listener is told of changes until it unsubscribes", () => {
  const { server, provider, type } = provide();
  const listener = vi.fn();
  const unsubscribe = provider.subscribe(listener);

  server.join();
  const told = listener.mock.calls.length;
  unsubscribe();
  type("a");

  expect(told).toBeGreaterThan(0);
  expect(listener).toHaveBeenCalledTimes(told);
});

describe("a turn", () => {
  test("is said before the changes that belong to it, and its end after them", () => {
    const { server, provider, type, status } = provide();
    const socket = server.join();
    const before = socket.words.length;

    provider.beginTurn("t1", { reason: "a doubled word" });
    type("fixed");
    const during = status().turn;
    provider.endTurn();

    expect(socket.words.slice(before)).toEqual(["turn", "update", "turn"]);
    expect(socket.said.filter(({ type }) => type === "turn")).toEqual([
      { type: "turn", id: "t1", task: "", model: "", reason: "a doubled word" },
      { type: "turn", id: "", task: "", model: "", reason: "" },
    ]);
    expect([during, status().turn]).toEqual(["t1", null]);
  });

  test("goes on after a reconnect, before anything else is said", () => {
    const { server, provider } = provide();
    server.join();
    provider.beginTurn("t1", { task: "T-17" });

    server.socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join();

    expect(server.socket.words.slice(0, 2)).toEqual(["turn", "sync-step-1"]);
    expect(server.socket.said[0]).toMatchObject({ id: "t1", task: "T-17" });
  });

  test("that the server has ended says so, and does not come back by itself", () => {
    const { server, provider, status } = provide();
    const socket = server.join();
    provider.beginTurn("t1");

    socket.hear(turnEnded("another", "lease_lost"));
    const untouched = status().turn;
    socket.hear(turnEnded("t1", "turn_cancelled", "Ada has stopped it"));
    socket.drop(1006);
    vi.advanceTimersByTime(250);
    server.join();

    expect([untouched, status().turn]).toEqual(["t1", null]);
    expect(status().turnEnded).toMatchObject({ code: "turn_cancelled", reason: "Ada has stopped it" });
    expect(server.socket.words).not.toContain("turn");
  });

  test("of somebody else can be stopped", () => {
    const { server, provider } = provide();
    const socket = server.join();

    provider.cancel("t1", "reviewer");
    provider.cancel("t2");

    expect(socket.said.filter(({ type }) => type === "cancel")).toEqual([
      { type: "cancel", turn: "t1", principal: "reviewer" },
      { type: "cancel", turn: "t2", principal: "" },
    ]);
  });
});
