import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Browser, Page, WebSocketRoute } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { Server } from "./serving.ts";
import { focused, heard, launch, myName, names, state, text, Visitors } from "./visiting.ts";

const server = new Server();
let browser: Browser;
let visitors: Visitors;
let rooms = 0;
let room: string;
let address: string;

beforeAll(async () => {
  [browser] = await Promise.all([launch(), server.start()]);
});

afterAll(async () => {
  await browser.close();
  await server[Symbol.asyncDispose]();
});

beforeEach(() => {
  visitors = new Visitors(browser);
  rooms += 1;
  room = `room-${rooms}`;
  address = `${server.address}/?room=${room}`;
});

afterEach(async () => {
  await visitors.leave();
  expect(visitors.complaints).toEqual([]);
});

async function join(options = {}): Promise<Page> {
  const page = await visitors.visit(address, options);
  await expect.poll(() => state(page)).toBe("Saved");
  return page;
}

describe("two people", () => {
  test("type at once and end with the same text", async () => {
    const [ada, grace] = [await join(), await join()];
    await ada.keyboard.type("Ada starts.\n");
    await expect.poll(() => text(grace)).toBe("Ada starts.\n");
    await grace.keyboard.press("Control+End");

    await Promise.all([
      ada.keyboard.type("aaaaaaaaaaaaaaaaaaaa"),
      grace.keyboard.type("gggggggggggggggggggg"),
    ]);

    await expect.poll(async () => (await text(ada)).length).toBe(52);
    await expect.poll(async () => (await text(grace)) === (await text(ada))).toBe(true);
    expect(await text(ada)).toMatch(/^Ada starts\.\n[ag]{40}$/);
    await expect.poll(() => state(ada)).toBe("Saved");
    await expect.poll(() => state(grace)).toBe("Saved");
  });

  test("see each other by name, at the caret and in the bar, in different colours", async () => {
    const [ada, grace] = [await join(), await join()];
    const [adasName, gracesName] = [await myName(ada), await myName(grace)];

    await ada.keyboard.type("one two");
    await expect.poll(() => text(grace)).toBe("one two");
    await grace.keyboard.press("Control+End");
    await grace.keyboard.press("Control+Shift+ArrowLeft");

    await expect.poll(() => names(ada)).toEqual([gracesName]);
    await expect.poll(() => names(grace)).toEqual([adasName]);
    await expect.poll(() => ada.locator(".cm-caret-name").allInnerTexts()).toEqual([gracesName]);
    await expect.poll(() => grace.locator(".cm-caret-name").allInnerTexts()).toEqual([adasName]);
    await expect.poll(() => ada.locator(".cm-others-selection").allInnerTexts()).toEqual(["two"]);
    const colour = (page: Page) =>
      page.evaluate(() => document.documentElement.style.getPropertyValue("--me-given"));
    expect(await colour(ada)).not.toBe(await colour(grace));
  });

  test("see at once that the other has left", async () => {
    const [ada, grace] = [await join(), await join()];
    await expect.poll(() => names(ada)).toHaveLength(1);

    await grace.close();

    await expect.poll(() => names(ada), { timeout: 15_000 }).toEqual([]);
  });

  test("undo only what is their own", async () => {
    const [ada, grace] = [await join(), await join()];
    await ada.keyboard.type("mine ");
    await expect.poll(() => text(grace)).toBe("mine ");
    await grace.keyboard.press("Control+End");
    await grace.keyboard.type("yours");
    await expect.poll(() => text(ada)).toBe("mine yours");

    await ada.keyboard.press("Control+z");

    await expect.poll(() => text(grace)).toBe("yours");
  });

  test("meet in rooms of any name", async () => {
    address = `${server.address}/?room=${encodeURIComponent("a/b ü 50% #日本?")}`;
    const [ada, grace] = [await join(), await join()];

    await ada.keyboard.type("here");

    await expect.poll(() => text(grace)).toBe("here");
  });

  test("keep their editors in step with a program that puts a picture into the text", async () => {
    const ada = await join();
    await ada.keyboard.type("first");
    await expect.poll(() => state(ada)).toBe("Saved");
    await write((shared) => shared.insertEmbed(2, { image: "cat.png" }));
    await expect.poll(() => text(ada)).toMatch(/^fi.+rst$/);

    await ada.keyboard.press("Control+End");
    await ada.keyboard.type(" last");

    const grace = await join();
    await expect.poll(() => text(grace)).toMatch(/^fi.+rst last$/);
    expect(await text(grace)).toBe(await text(ada));
  });

  test("keep their editors in step with a program that writes the line ends of Windows", async () => {
    const ada = await join();
    await ada.keyboard.type("first");
    await expect.poll(() => state(ada)).toBe("Saved");
    await write((shared) => shared.insert(shared.length, "\r\nsecond\r\n"));
    await expect.poll(() => text(ada)).toContain("second");

    await ada.keyboard.press("Control+End");
    await ada.keyboard.type("third");

    const grace = await join();
    await expect
      .poll(async () => (await text(grace)).replaceAll("\r", ""))
      .toMatch(/^first.*\n.*second.*\nthird$/);
    expect(await text(grace)).toBe(await text(ada));
  });
});

describe("saved", () => {
  test("is not said while the server does nothing, and is said when it has", async () => {
    const ada = await join();
    await ada.keyboard.type("first");
    await expect.poll(() => state(ada)).toBe("Saved");
    const said = await recordStates(ada);

    server.pause();
    await ada.keyboard.type("second");
    const paused = await state(ada);
    const resumedAt = Date.now();
    server.resume();
    await expect.poll(() => state(ada)).toBe("Saved");

    expect(paused).toBe("Saving…");
    const [last, ...before] = (await said()).reverse();
    expect(last?.words).toBe("Saved");
    expect(last?.at).toBeGreaterThanOrEqual(resumedAt);
    expect(new Set(before.map(({ words }) => words))).toEqual(new Set(["Saving…"]));
    expect(await ada.locator("#saved-after").innerText()).toMatch(/^last change on disk after \d+ ms$/);
  });

  test("follows the acknowledgement, not the echo", async () => {
    const line = await tap();
    const held: Buffer[] = [];
    let echoes = 0;
    line.onFrame = (frame) => {
      if (frame[0] === 0) echoes += 1;
      if (frame[0] === 111) held.push(frame);
      return frame[0] !== 111;
    };

    await line.page.keyboard.type("word");
    await expect.poll(() => echoes > 0 && held.length > 0).toBe(true);
    const before = await state(line.page);
    line.onFrame = () => true;
    for (const frame of held) line.send(frame);

    expect(before).toBe("Saving…");
    await expect.poll(() => state(line.page)).toBe("Saved");
  });

  test("means that a killed server still has it", async () => {
    const ada = await join();
    await ada.keyboard.type("survives");
    await expect.poll(() => state(ada)).toBe("Saved");

    await server.stop("SIGKILL");
    const onDisk = await server.export(room);
    await server.start();

    expect(onDisk.trim()).toBe("survives");
    expect(await text(await join())).toBe("survives");
  });
});

describe("a server that goes away", () => {
  test.each(["SIGTERM", "SIGKILL"] as const)(
    "by %s loses nothing of what is typed meanwhile",
    async (signal) => {
      const [ada, grace] = [await join(), await join()];
      await ada.keyboard.type("before ");
      await expect.poll(() => text(grace)).toBe("before ");
      await expect.poll(() => heard(ada)).toBe("Connected.");

      const code = await server.stop(signal);
      await expect.poll(() => state(ada)).toBe("Offline");
      await expect.poll(() => heard(ada)).toMatch(/^Offline\. .*cannot be reached/);
      await ada.keyboard.type("abc");
      const away = await state(ada);
      const alone = await names(ada);
      await grace.keyboard.press("Control+Home");
      await grace.keyboard.type("x");
      const awayToo = await state(grace);
      await server.start();

      expect(code).toBe(signal === "SIGTERM" ? 0 : null);
      expect(away).toBe("Offline — 3 changes kept in this tab");
      expect(awayToo).toBe("Offline — 1 change kept in this tab");
      expect(alone).toEqual([]);
      await expect.poll(() => state(ada), { timeout: 60_000 }).toBe("Saved");
      await expect.poll(() => state(grace), { timeout: 60_000 }).toBe("Saved");
      await expect.poll(() => text(ada)).toBe("xbefore abc");
      await expect.poll(() => text(grace)).toBe("xbefore abc");
      await expect.poll(() => names(ada)).toHaveLength(1);
      await expect.poll(() => heard(ada)).toBe("Connected.");
    },
  );

  test("or does nothing is worth a warning before the window is closed", async () => {
    const ada = await join();
    server.pause();
    await ada.keyboard.type("a");

    const asked = ada.waitForEvent("dialog");
    await ada.close({ runBeforeUnload: true });
    const dialog = await asked;
    await dialog.accept();
    server.resume();

    expect(dialog.type()).toBe("beforeunload");
  });
});

describe("a room that takes nothing", () => {
  const notice = (kind: string) => Buffer.from([113, kind.length, ...Buffer.from(kind), 0]);

  test("says so, keeps what it shows, and goes on when it can", async () => {
    const { page, send } = await tap();
    await page.keyboard.type("kept");
    await expect.poll(() => state(page)).toBe("Saved");

    send(notice("read-only"));
    await expect.poll(() => state(page)).toBe("Read-only: nothing can be saved now");
    await page.keyboard.type(" lost");
    const meanwhile = await text(page);
    send(notice("writable"));
    await expect.poll(() => state(page)).toBe("Saved");
    await page.keyboard.type(" again");

    expect(meanwhile).toBe("kept");
    await expect.poll(() => text(page)).toBe("kept again");
    await expect.poll(() => state(page)).toBe("Saved");
  });

  test("because it is gone is not asked again, and says why", async () => {
    const { page, close } = await tap();

    await close(4404);

    await expect.poll(() => state(page)).toBe("Stopped");
    await page.locator("#state-card").waitFor({ state: "visible" });
    expect(await page.locator("#state-card").innerText()).toBe("This room was deleted.");
  });
});

describe("finding the way", () => {
  test("the first page is the playground that everybody starts in", async () => {
    address = `${server.address}/`;
    const ada = await join();

    expect(await ada.locator("#room").inputValue()).toBe("playground");
  });

  test("the second window shows the same room, to somebody else", async () => {
    const ada = await join();
    await ada.keyboard.type("shared");

    const opened = ada.waitForEvent("popup");
    await ada.locator("#second").click();
    const second = await opened;

    await expect.poll(() => text(second)).toBe("shared");
    expect(second.url()).toBe(address);
    await expect.poll(() => names(ada)).toEqual([await myName(second)]);
  });

  test("an empty room is one step away", async () => {
    const ada = await join();

    await ada.locator("#new-room").click();
    await ada.waitForURL(/room=[a-z]+-[a-z]+-\d{4}$/);

    await expect.poll(() => state(ada)).toBe("Saved");
    expect(await text(ada)).toBe("");
  });
});

describe("with the keyboard alone", () => {
  test("the focus starts in the document, and Tab goes on through everything in order", async () => {
    const ada = await join();
    const places: string[] = [];
    const walk = async (key: string, steps: number) => {
      for (let step = 0; step < steps; step++) {
        places.push(await focused(ada));
        await ada.keyboard.press(key);
      }
    };

    await walk("Shift+Tab", 7);
    await walk("Tab", 7);
    await walk("Tab", 7);

    const top = ["skip", "brand", "room", "go", "state", "me", "second"];
    expect(places).toEqual([
      "editor",
      ...top.slice(1).reverse(),
      ...top,
      "editor",
      "by-author",
      "demo",
      "tab-browser",
      "copy",
      "code",
      "new-room",
    ]);
  });

  test("another room is entered by its name", async () => {
    const ada = await join();

    await ada.locator("#room").focus();
    await ada.keyboard.press("Control+a");
    await ada.keyboard.type("elsewhere");
    await ada.keyboard.press("Enter");
    await ada.waitForURL(/\?room=elsewhere$/);

    await expect.poll(() => state(ada)).toBe("Saved");
  });

  test("a name that cannot be is refused in words, and Escape goes back", async () => {
    const ada = await join();

    await ada.locator("#room").fill("é".repeat(200));
    await ada.keyboard.press("Enter");
    const problem = await ada.locator("#room-problem").innerText();
    await ada.keyboard.press("Escape");

    expect(problem).toBe("That name is too long.");
    expect(await ada.locator("#room").inputValue()).toBe(room);
    expect(await focused(ada)).toBe("editor");
  });

  test("a new name reaches the others, and the next window", async () => {
    const [ada, grace] = [await join(), await join()];

    await ada.locator("#me").focus();
    await ada.keyboard.press("Enter");
    await ada.keyboard.press("Control+a");
    await ada.keyboard.type("Ada Lovelace");
    await ada.keyboard.press("Enter");

    await expect.poll(() => names(grace)).toEqual(["Ada Lovelace"]);
    expect(await focused(ada)).toBe("me");
    await ada.reload();
    expect(await myName(ada)).toBe("Ada Lovelace");
  });

  test("the languages of the code are reached with the arrows", async () => {
    const ada = await join();

    await ada.locator("#tab-browser").focus();
    await ada.keyboard.press("ArrowRight");

    expect(await focused(ada)).toBe("tab-python");
    expect(await ada.locator("#code").innerText()).toContain("import asyncio");
    expect(await ada.locator("#tab-python").getAttribute("aria-selected")).toBe("true");
  });
});

describe("for everybody", () => {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

  test.each([
    ["light", 1280],
    ["dark", 1280],
    ["light", 360],
    ["dark", 360],
  ] as const)("in the %s, %i pixels wide, nothing is found wrong", async (colorScheme, width) => {
    const ada = await join({ colorScheme, viewport: { width, height: 800 } });
    await ada.keyboard.type(
      "# Title\n\nSome *words*, `code` and a [link](https://example.com).\n\n> quote\n\n- item\n",
    );
    const grace = await join();
    await grace.keyboard.press("Control+End");
    await grace.keyboard.type("hello");
    await expect.poll(() => ada.locator(".cm-caret").count()).toBe(1);
    await ada.locator("#me").click();

    await ada.evaluate(axe);
    const found = await ada.evaluate(async () => {
      const { violations } = await (
        globalThis as unknown as { axe: { run(): Promise<AxeResults> } }
      ).axe.run();
      return violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
    });

    expect(found).toEqual([]);
  });

  test("nothing has to be scrolled sideways on a narrow screen", async () => {
    const ada = await join({ viewport: { width: 320, height: 640 } });

    const [content, window] = await ada.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);

    expect(content).toBe(window);
  });
});

interface Line {
  readonly page: Page;
  /** Whether a frame of the server may pass. */
  onFrame: (frame: Buffer) => boolean;
  send(frame: Buffer): void;
  close(code: number): Promise<void>;
}

/** Somebody in the room whose line the test can listen to and speak on. */
async function tap(): Promise<Line> {
  const page = await visitors.visit("about:blank");
  let socket: WebSocketRoute | undefined;
  const line: Line = {
    page,
    onFrame: () => true,
    send: (frame) => socket?.send(frame),
    close: async (code) => socket?.close({ code }),
  };
  await page.routeWebSocket(/\/ws\//, (opened) => {
    socket = opened;
    opened.connectToServer().onMessage((frame) => {
      if (typeof frame !== "string" && line.onFrame(frame)) opened.send(frame);
    });
  });
  await page.goto(address);
  await expect.poll(() => state(page)).toBe("Saved");
  return line;
}

/** Everything that the state says from now on, and when. */
async function recordStates(page: Page) {
  const record = await page.locator("#state-words").evaluateHandle((words) => {
    const said: { words: string; at: number }[] = [];
    const look = () => said.push({ words: words.textContent ?? "", at: Date.now() });
    new MutationObserver(look).observe(words, { childList: true, characterData: true, subtree: true });
    return said;
  });
  return () => record.jsonValue();
}

/** Change the text as another program would. */
async function write(change: (shared: Y.Text) => void): Promise<void> {
  const doc = new Y.Doc();
  const provider = new WebsocketProvider(`${server.address.replace("http", "ws")}/ws`, room, doc, {
    WebSocketPolyfill: WebSocket as unknown as typeof globalThis.WebSocket,
  });
  await new Promise<void>((synced) => provider.once("sync", () => synced()));
  change(doc.getText("text"));
  await new Promise((sent) => setImmediate(sent));
  provider.destroy();
}
