import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import type { Socket } from "../../src/connection.ts";
import { Provider } from "../../src/provider.ts";
import { Server } from "./serving.ts";
import { launch, myName, names, state, text, Visitors } from "./visiting.ts";

const server = new Server();
let browser: Browser;
let visitors: Visitors;
let rooms = 0;
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
  address = `${server.address}/?room=room-${rooms}`;
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

const agents = (page: Page) => page.locator("#agents .agent-name").allInnerTexts();
const doing = (page: Page) => page.locator("#agents .agent-state").innerText();
const turns = (page: Page) => page.locator("#turns .turn-what").allInnerTexts();
const credits = (page: Page) => page.locator("#legend .credit-name").allInnerTexts();

async function bring(page: Page): Promise<void> {
  await page.locator("#demo").click();
  await expect.poll(() => agents(page)).toEqual(["Demo reviewer"]);
}

/** At the end, wherever the focus was. */
async function write(page: Page, words: string): Promise<void> {
  await page.locator("#editor .cm-content").focus();
  await page.keyboard.press("Control+End");
  await page.keyboard.type(words);
}

describe("the demo agent", () => {
  test("comes, mends, and what it did is taken back and brought again without what a person wrote since", async () => {
    const [ada, grace] = [await join(), await join()];
    await ada.keyboard.type("Over the the fence.");
    await expect.poll(() => text(grace)).toBe("Over the the fence.");

    await bring(ada);
    await expect.poll(() => text(ada)).toBe("Over the fence.");
    await write(ada, " And beyond.");
    await expect.poll(() => turns(ada)).toEqual(["“the” was there twice"]);
    await ada.getByRole("button", { name: "Undo: “the” was there twice" }).click();
    await expect.poll(() => text(ada)).toBe("Over the the fence. And beyond.");
    await expect.poll(() => ada.locator("#agents-announcer").innerText()).toBe("Taken back.");
    await ada.getByRole("button", { name: "Redo: “the” was there twice" }).click();

    await expect.poll(() => text(grace)).toBe("Over the fence. And beyond.");
    expect(await agents(grace)).toEqual(["Demo reviewer"]);
    expect(await names(grace)).toEqual([await myName(ada)]);
    expect(await ada.locator("#agents-here .hidden").allInnerTexts()).toEqual(["Demo reviewer"]);
  });

  test("says what it does, and stops when it is told to", async () => {
    const ada = await join();
    await ada.keyboard.type(Array.from({ length: 12 }, (_, line) => `${line} teh shed`).join("\n"));

    await bring(ada);
    await expect.poll(() => doing(ada)).toMatch(/^Writing · “the” for “teh”/);
    await expect.poll(() => text(ada)).toContain("0 the shed");
    await ada.getByRole("button", { name: "Stop Demo reviewer" }).click();

    await expect.poll(() => doing(ada)).toMatch(/^Idle · Was stopped/);
    const left = await text(ada);
    expect(left).toContain("11 teh shed");
    // It takes up what is new, and nothing that it was stopped at.
    await write(ada, "\nand teh end");
    await expect.poll(() => text(ada)).toBe(`${left}\nand the end`);
  });

  test("is sent away with the same button", async () => {
    const ada = await join();
    await bring(ada);

    await ada.locator("#demo").focus();
    await ada.keyboard.press("Enter");

    await expect.poll(() => agents(ada)).toEqual([]);
    expect(await ada.locator("#demo").innerText()).toBe("Bring the demo agent");
    expect(await ada.locator("#agents-announcer").innerText()).toBe("Demo reviewer has left.");
  });
});

describe("an agent of one's own", () => {
  test("is seen by who it is, what it does, for whom, and what it is about to write", async () => {
    const ada = await join();
    await using agent = await Agent.join("Writer", { role: "writer", on_behalf_of: "Ada" });

    agent.write("The path runs ", { status: "writing", tail: "from the ga", detail: "describing the path" });

    await expect.poll(() => agents(ada)).toEqual(["Writer"]);
    await expect.poll(() => doing(ada)).toBe("Writing · describing the path");
    expect(await ada.locator("#agents .agent-what").innerText()).toBe("writer, for Ada");
    expect(await ada.locator(".cm-caret-name").allInnerTexts()).toEqual(["Writer"]);
    expect(await ada.locator(".cm-tail").allInnerTexts()).toEqual(["from the ga"]);
    expect(await ada.locator("#agents-announcer").innerText()).toBe("Writer, an agent, is here.");
    expect(await text(ada)).toBe("The path runs ");
  });

  test("waits for approval or is in trouble in words, and there is nothing to stop without a turn", async () => {
    const ada = await join();
    await using agent = await Agent.join("Writer");
    const stop = ada.getByRole("button", { name: "Stop Writer" });

    agent.show({ status: "waiting_approval", detail: "May I go on?" });
    await expect.poll(() => doing(ada)).toBe("Waits for approval · May I go on?");
    const waiting = await stop.getAttribute("aria-disabled");
    agent.show({ status: "error", task: "T-17", turn: "t1" });
    await expect.poll(() => doing(ada)).toBe("Has a problem · T-17");

    expect(waiting).toBe("true");
    expect(await stop.getAttribute("aria-disabled")).toBe("false");
    expect(await ada.locator("#agents-announcer").innerText()).toBe("Writer: Has a problem.");
  });

  test("is stopped by the button, which keeps the focus", async () => {
    const ada = await join();
    await using agent = await Agent.join("Writer");
    agent.provider.beginTurn("t1", { reason: "Writes" });
    agent.write("The path ", { status: "writing", turn: "t1" });
    const stop = ada.getByRole("button", { name: "Stop Writer" });
    await expect.poll(() => stop.getAttribute("aria-disabled")).toBe("false");

    await stop.focus();
    await ada.keyboard.press("Enter");
    await expect.poll(() => agent.provider.getSnapshot().turnEnded?.code).toBe("turn_cancelled");
    const words = await stop.innerText();
    agent.show({ status: "idle" });

    expect(words).toBe("Stopping…");
    await expect.poll(() => stop.innerText()).toBe("Stop");
    expect(await stop.evaluate((button) => button === document.activeElement)).toBe(true);
  });
});

describe("colour by author", () => {
  test("shows two authors, each with a colour, and goes away again", async () => {
    const ada = await join();
    await ada.keyboard.type("🌱 Over teh fence.");
    await bring(ada);
    await expect.poll(() => text(ada)).toBe("🌱 Over the fence.");

    await ada.locator("#by-author").click();
    await expect.poll(() => credits(ada)).toEqual([await myName(ada), "Demo reviewer"]);
    const coloured = await ada.locator(".cm-by-agent").allInnerTexts();
    const colours = await ada
      .locator(".cm-by")
      .evaluateAll((runs) => runs.map((run) => (run as HTMLElement).style.getPropertyValue("--who")));
    const legend = await ada.locator("#legend").innerText();
    await ada.locator("#by-author").click();

    expect(coloured.join("")).toMatch(/^(the|he)$/);
    expect(new Set(colours).size).toBe(2);
    expect(legend).toContain("“the” for “teh”");
    expect(await ada.locator(".cm-by").count()).toBe(0);
    expect(await ada.locator("#authors").isVisible()).toBe(false);
  });

  test("follows what is written", async () => {
    const [ada, grace] = [await join(), await join()];
    await ada.keyboard.type("Ada. ");
    await ada.locator("#by-author").click();
    await expect.poll(() => credits(ada)).toEqual([await myName(ada)]);

    await expect.poll(() => text(grace)).toBe("Ada. ");
    await grace.keyboard.press("Control+End");
    await grace.keyboard.type("Grace.");

    await expect.poll(() => credits(ada)).toEqual([await myName(ada), await myName(grace)]);
    await expect.poll(() => ada.locator(".cm-by").allInnerTexts()).toEqual(["Ada. ", "Grace."]);
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
    await ada.keyboard.type("# Title\n\nOver the the fence,\nand teh shed. \n");
    await bring(ada);
    await expect.poll(() => turns(ada)).toHaveLength(1);
    await ada.locator("#by-author").click();
    await expect.poll(() => credits(ada)).toHaveLength(2);

    await ada.evaluate(axe);
    const found = await ada.evaluate(async () => {
      const { violations } = await (
        globalThis as unknown as { axe: { run(): Promise<AxeResults> } }
      ).axe.run();
      return violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
    });

    expect(found).toEqual([]);
    const [content, window] = await ada.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    expect(content).toBe(window);
  });
});

/** A program in the room, by this client's own provider. */
class Agent {
  readonly doc = new Y.Doc();
  readonly awareness = new Awareness(this.doc);
  readonly provider: Provider;
  readonly #user: object;

  private constructor(name: string, more: object) {
    this.#user = { name, kind: "agent", color: "#6741d9", ...more };
    this.provider = new Provider({
      url: `${server.address.replace("http", "ws")}/ws/room-${rooms}`,
      doc: this.doc,
      awareness: this.awareness,
      openSocket: (url, subprotocols) => new WebSocket(url, subprotocols) as unknown as Socket,
    });
  }

  static async join(name: string, more: object = {}): Promise<Agent> {
    const agent = new Agent(name, more);
    await expect.poll(() => agent.provider.getSnapshot().isSynced).toBe(true);
    return agent;
  }

  show(doing: object): void {
    const shared = this.doc.getText("text");
    const head = Y.createRelativePositionFromTypeIndex(shared, shared.length);
    this.awareness.setLocalState({ user: this.#user, agent: doing, cursor: { anchor: head, head } });
  }

  write(words: string, doing: object): void {
    const shared = this.doc.getText("text");
    shared.insert(shared.length, words);
    this.show(doing);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.provider.destroy();
    this.awareness.destroy();
  }
}
