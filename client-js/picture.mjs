/**
 * Takes the pictures in README.md: two people in one room, and an agent at work. `npm run picture -- http://127.0.0.1:8000`
 * with a server there.
 */

import { writeFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [server = "http://127.0.0.1:8000"] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium-headless-shell",
});

async function visit(name, colorScheme, room = "garden-plan", viewport = { width: 700, height: 560 }) {
  const context = await browser.newContext({
    viewport,
    deviceScaleFactor: viewport.width > 700 ? 1.5 : 2,
    colorScheme,
  });
  await context.addInitScript((chosen) => localStorage.setItem("collab.name", chosen), name);
  const page = await context.newPage();
  await page.goto(`${server}/?room=${room}`);
  await page.locator('[data-mood="saved"]').waitFor();
  return page;
}

const mira = await visit("Mira Halvorsen", "light");
await mira.keyboard.press("Control+a");
await mira.keyboard.press("Delete");
await mira.keyboard.type("# Garden plan\n\nThree beds, one path, and somewhere to sit.\n\n");
await mira.keyboard.type(
  "1. Measure the slope by the shed\nOrder gravel, **two tons**\nAsk about the old pear tree",
);
const jonas = await visit("Jonas Weber", "dark");
await jonas.getByText("somewhere to sit").click();
await jonas.keyboard.press("End");
await jonas.keyboard.type(" A bench?");
await mira.keyboard.press("Shift+Control+ArrowLeft");
await mira.keyboard.press("Shift+Control+ArrowLeft");
await mira.locator(".cm-caret").waitFor();
await Promise.all([mira, jonas].map((page) => page.locator('[data-mood="saved"]').waitFor()));
await Promise.all([mira, jonas].map((page) => page.getByText("31 words").waitFor()));

const windows = await Promise.all(
  [mira, jonas].map((page) => page.screenshot({ clip: { x: 0, y: 0, width: 700, height: 534 } })),
);
const frame = await browser.newPage({ viewport: { width: 1240, height: 640 }, deviceScaleFactor: 1.5 });
await frame.setContent(`
  <style>
    body { margin: 0; background: #c9ced6; }
    img { position: absolute; width: 640px; border-radius: 12px; box-shadow: 0 30px 60px -20px rgb(20 25 35 / 55%); }
    img:first-of-type { left: 30px; top: 32px; }
    img:last-of-type { right: 30px; bottom: 32px; }
  </style>
  ${windows.map((image) => `<img src="data:image/png;base64,${image.toString("base64")}">`).join("")}`);
await frame.locator("img").last().waitFor();
writeFileSync(new URL("two-windows.png", import.meta.url), await frame.screenshot());

const ada = await visit("Mira Halvorsen", "light", "garden-notes", { width: 1240, height: 640 });
await ada.keyboard.press("Control+a");
await ada.keyboard.press("Delete");
await ada.keyboard.type("# Garden notes\n\nThree beds, one path, and and somewhere to sit.\n\n");
await ada.keyboard.type("Plant teh hedge untill the frost, on thier side.\n\n");
await ada.locator("#demo").click();
await ada.locator(".turn").first().waitFor();
await ada.locator('[data-doing="idle"]').waitFor();
await ada.locator("#by-author").click();
await ada.locator(".cm-by-agent").first().waitFor();
await ada.locator("#editor .cm-content").focus();
await ada.keyboard.press("Control+End");
await ada.keyboard.type("The gravel, wich we order on Monday, comes by cart.\n\nThe bench is for two.");
await ada.locator('[data-doing="writing"]').waitFor();
await ada.waitForFunction(
  () => document.querySelector("#editor").shadowRoot.querySelector(".cm-line:last-child .cm-by") !== null,
);
writeFileSync(new URL("agent-at-work.png", import.meta.url), await ada.screenshot());
await browser.close();
