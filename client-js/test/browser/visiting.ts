/** A real browser, whose pages may not complain about anything. */

import { existsSync } from "node:fs";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];

/** Without a server there is nothing to connect to, and without a good token no ticket; the browser says so. */
const EXPECTED = /WebSocket connection to .* failed|ERR_CONNECTION_REFUSED|status of 40[13]/;

export async function launch(): Promise<Browser> {
  const executablePath = PLACES.find((place) => place !== undefined && existsSync(place));
  if (executablePath === undefined) {
    throw new Error("no Chromium: `apt-get install chromium-headless-shell`, or name one in CHROMIUM");
  }
  const quiet = ["background-networking", "component-update", "sync", "quic"];
  return chromium.launch({
    executablePath,
    args: [...quiet.map((part) => `--disable-${part}`), "--no-first-run"],
  });
}

export class Visitors {
  readonly complaints: string[] = [];
  readonly #browser: Browser;
  readonly #close: (() => Promise<void>)[] = [];

  constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** Somebody with a browser of their own. */
  async visit(address: string, options: BrowserContextOptions = {}): Promise<Page> {
    const context = await this.#browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    this.#close.push(() => context.close());
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
        console.error(`policy violated: ${violatedDirective} ${blockedURI}`);
      });
    });
    context.on("page", (page) => this.#listen(page));
    const page = await context.newPage();
    await page.goto(address);
    return page;
  }

  async leave(): Promise<void> {
    for (const close of this.#close.splice(0)) await close();
  }

  #listen(page: Page): void {
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      const words = message.text();
      if (["error", "warning"].includes(message.type()) && !EXPECTED.test(words)) this.complaints.push(words);
    });
  }
}

export function state(page: Page): Promise<string> {
  return page.locator("#state-words").innerText();
}

/** What a screen reader was told last. */
export function heard(page: Page): Promise<string> {
  return page.locator("#announcer").innerText();
}

/** The document as it stands in the editor, without the carets of others. */
export function text(page: Page): Promise<string> {
  return page.locator("#editor .cm-content").evaluate((content) =>
    [...content.querySelectorAll(".cm-line")]
      .map((line) => {
        const copy = line.cloneNode(true) as Element;
        for (const extra of copy.querySelectorAll(".cm-caret, .cm-tail, .cm-placeholder")) extra.remove();
        return copy.textContent?.replaceAll("\u200b", "") ?? "";
      })
      .join("\n"),
  );
}

export function names(page: Page): Promise<string[]> {
  return page.locator("#people li .hidden").allInnerTexts();
}

export function myName(page: Page): Promise<string> {
  return page.locator("#me-name").innerText();
}

/** What has the focus, by id or by what it is in the editor. */
export function focused(page: Page): Promise<string> {
  return page.evaluate(() => document.activeElement?.id || document.activeElement?.className || "nothing");
}
