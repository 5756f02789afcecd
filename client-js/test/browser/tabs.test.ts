import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { bundled, serve } from "./bundling.ts";
import { Server } from "./serving.ts";
import { launch, Visitors } from "./visiting.ts";

const MOVES = 400;

/** The stock client as it comes: its tabs also speak to each other, past the server. */
const TAB = `
  import * as Y from "yjs";
  import { WebsocketProvider } from "y-websocket";

  const doc = new Y.Doc();
  const [server, name] = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  const provider = new WebsocketProvider(server, "tabs", doc);
  let closes = 0;
  provider.on("connection-close", () => { closes += 1; });
  window.ask = () => tab;
  const tab = {
    closes: () => closes,
    isSynced: () => provider.synced,
    seen: () => [...provider.awareness.getStates().values()].map((state) => [state.name, state.at]).sort(),
    move: async (times) => {
      for (let at = 1; at <= times; at += 1) {
        provider.awareness.setLocalState({ name, at });
        await new Promise((next) => setTimeout(next, 5));
      }
    },
  };
`;

type Tab = {
  closes(): number;
  isSynced(): boolean;
  seen(): [string, number][];
  move(times: number): Promise<void>;
};

const server = new Server();
let browser: Browser;
let visitors: Visitors;

beforeAll(async () => {
  [browser] = await Promise.all([launch(), server.start()]);
  visitors = new Visitors(browser);
});

afterAll(async () => {
  await visitors.leave();
  await browser.close();
  await server[Symbol.asyncDispose]();
  expect(visitors.complaints).toEqual([]);
});

test("tabs of one browser, which pass on each other's presence, are taken for no forgers", async () => {
  const page = await serve(await bundled(TAB));
  const sockets = `${server.address.replace("http", "ws")}/ws`;
  const address = (name: string) => `${page}#${encodeURIComponent(JSON.stringify([sockets, name]))}`;
  const left = await visitors.visit(address("left"));
  const right = await left.context().newPage();
  await right.goto(address("right"));
  const outside = new WebsocketProvider(sockets, "tabs", new Y.Doc(), {
    disableBc: true,
    WebSocketPolyfill: WebSocket as unknown as typeof globalThis.WebSocket,
  });
  await expect.poll(() => Promise.all([left, right].map(isSynced))).toEqual([true, true]);

  await Promise.all([left, right].map((tab) => tab.evaluate((times) => ask().move(times), MOVES)));

  const both = [
    ["left", MOVES],
    ["right", MOVES],
  ];
  for (const tab of [left, right]) {
    await expect
      .poll(() =>
        tab.evaluate(() =>
          ask()
            .seen()
            .filter(([name]) => name),
        ),
      )
      .toEqual(both);
    expect(await tab.evaluate(() => ask().closes())).toBe(0);
  }
  const seenOutside = () => [...outside.awareness.getStates().values()].map(({ name, at }) => [name, at]);
  await expect
    .poll(() =>
      seenOutside()
        .filter(([name]) => name)
        .sort(),
    )
    .toEqual(both);
  outside.destroy();
});

declare function ask(): Tab;

function isSynced(page: Page): Promise<boolean> {
  return page.evaluate(() => ask().isSynced());
}
