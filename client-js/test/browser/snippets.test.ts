import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { bundled, serve } from "./bundling.ts";
import { PYTHON, Server } from "./serving.ts";
import { launch, state, text, Visitors } from "./visiting.ts";

const server = new Server();
let browser: Browser;
let visitors: Visitors;
let ada: Page;

beforeAll(async () => {
  [browser] = await Promise.all([launch(), server.start()]);
  visitors = new Visitors(browser);
});

afterAll(async () => {
  await browser.close();
  await server[Symbol.asyncDispose]();
  expect(visitors.complaints).toEqual([]);
});

describe.each(["a plain name", "ä/b c"])("in the room %j, the code on the page does what it says", (room) => {
  beforeEach(async () => {
    ada = await visitors.visit(`${server.address}/?room=${encodeURIComponent(room)}`, {
      permissions: ["clipboard-read", "clipboard-write"],
    });
    await expect.poll(() => state(ada)).toBe("Saved");
  });

  test("in Python, with pycrdt and websockets", async () => {
    const code = await copied("python");

    await promisify(execFile)(PYTHON, ["-W", "error", "-c", code]);

    await expect.poll(() => text(ada)).toContain("Hello, Python!");
  });

  test("in a page of another address, with y-websocket as it comes", async () => {
    const code = await copied("browser");
    const address = await serve(await bundled(code));

    const page = await visitors.visit(address);

    await expect.poll(() => text(ada)).toContain("Hello, browser!");
    await page.close();
  });
});

/** What the button puts on the clipboard. */
async function copied(language: "browser" | "python"): Promise<string> {
  await ada.locator(`#tab-${language}`).click();
  await ada.locator("#copy").click();
  await expect.poll(() => ada.locator("#copy").innerText()).toBe("Copied");
  const code = await ada.evaluate(() => navigator.clipboard.readText());
  expect(code).toBe(await ada.locator("#code").innerText());
  return code;
}
