// A person in Chromium at the playground: does what a test says, one JSON object a line, and answers with one.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { chromium } = createRequire(new URL("../../client-js/package.json", import.meta.url))("playwright-core");

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];
const executablePath = PLACES.find((place) => place !== undefined && existsSync(place));
const browser = await chromium.launch({ executablePath, args: ["--disable-background-networking", "--no-first-run"] });
const page = await browser.newPage();

/** The document as it stands in the editor, without the carets of others. */
const text = () =>
  page.locator("#editor .cm-content").evaluate((content) =>
    [...content.querySelectorAll(".cm-line")]
      .map((line) => {
        const copy = line.cloneNode(true);
        for (const extra of copy.querySelectorAll(".cm-caret, .cm-placeholder")) extra.remove();
        return copy.textContent?.replaceAll("\u200b", "") ?? "";
      })
      .join("\n"),
  );

const ACTIONS = {
  visit: async ({ address }) => {
    await page.goto(address);
    await page.locator("#editor .cm-content").click();
  },
  press: ({ keys }) => page.keyboard.press(keys),
  type: ({ words, delay }) => page.keyboard.type(words, { delay }),
  text,
  state: () => page.locator("#state-words").innerText(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { does, ...rest } = JSON.parse(line);
  try {
    process.stdout.write(`${JSON.stringify({ is: (await ACTIONS[does](rest)) ?? null })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ failed: String(error) })}\n`);
  }
}
await browser.close();
