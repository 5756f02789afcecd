import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Server } from "./serving.ts";
import { focused, launch, myName, state, text, Visitors } from "./visiting.ts";

const server = new Server("--auth", "keys", "--demo", "on");
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

/** An API key for this test's room, which the server knows within two seconds. */
async function key(principal: string, may: string): Promise<{ id: string; token: string }> {
  const who = ["--principal", principal, "--name", `${principal} the tester`, "--kind", "human"];
  const made = await server.operate("key", "create", ...who, "--room", `${room}=${may}`, "--json");
  const { id, key: token } = JSON.parse(made);
  await expect.poll(async () => (await ask(token)).status, { interval: 200 }).toBe(201);
  return { id, token };
}

function ask(token: string): Promise<Response> {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const body = JSON.stringify({ room });
  return fetch(`${server.address}/v1/tickets`, { method: "POST", headers, body });
}

async function ticket(token: string): Promise<string> {
  return ((await (await ask(token)).json()) as { ticket: string }).ticket;
}

const asks = (page: Page) => page.locator("#sign-in-card").isVisible();
const why = (page: Page) => page.locator("#sign-in-why").innerText();

async function signIn(page: Page, token: string): Promise<void> {
  await page.locator("#token").fill(token);
  await page.keyboard.press("Enter");
}

test("a link with a token signs in, and nothing of it stays in sight", async () => {
  const { token } = await key("ada", "read,write,presence");

  const page = await visitors.visit(`${address}#token=${token}`);
  await expect.poll(() => state(page)).toBe("Saved");
  await page.keyboard.type("signed");

  await expect.poll(() => state(page)).toBe("Saved");
  await expect.poll(() => myName(page)).toBe("ada the tester");
  expect(page.url()).toBe(address);
  expect(await page.content()).not.toContain(token);
  await page.locator("#me").click();
  await expect.poll(() => page.locator("#me-id").innerText()).toBe("ada");
});

test("a link with a token signs in where the page is open already", async () => {
  const { token } = await key("ada", "read,write,presence");
  const page = await visitors.visit(address);
  await expect.poll(() => asks(page)).toBe(true);

  await page.goto(`${address}#token=${token}`);

  await expect.poll(() => state(page)).toBe("Saved");
  expect(await asks(page)).toBe(false);
  expect(page.url()).toBe(address);
});

test("a ticket lets in once, to edit with", async () => {
  const { token } = await key("ada", "read,write,presence");
  const shown = await ticket(token);

  const first = await visitors.visit(`${address}#ticket=${shown}`);
  await expect.poll(() => state(first)).toBe("Saved");
  await first.keyboard.type("by ticket");
  await expect.poll(() => state(first)).toBe("Saved");
  const second = await visitors.visit(`${address}#ticket=${shown}`);

  await expect.poll(() => asks(second)).toBe(true);
  expect(await text(first)).toBe("by ticket");
});

test("who may only read sees the document, cannot type, and is told why", async () => {
  const [writer, reader] = [await key("ada", "read,write,presence"), await key("grace", "read,presence")];
  const ada = await visitors.visit(`${address}#token=${writer.token}`);
  await expect.poll(() => state(ada)).toBe("Saved");
  await ada.keyboard.type("only to read");

  const byTicket = await visitors.visit(`${address}#ticket=${await ticket(reader.token)}`);
  const byToken = await visitors.visit(`${address}#token=${reader.token}`);

  for (const page of [byTicket, byToken]) {
    await expect.poll(() => text(page)).toBe("only to read");
    await expect.poll(() => state(page)).toBe("Read-only");
    await page.locator("#editor .cm-content").focus();
    await page.keyboard.type("nothing");
    expect(await page.locator("#editor .cm-content").getAttribute("contenteditable")).toBe("false");
    expect(await text(page)).toBe("only to read");
  }
  await byToken.locator("#state").click();
  expect(await byToken.locator("#state-detail").innerText()).toBe(
    "You may read this document, not change it.",
  );
  expect(await text(ada)).toBe("only to read");
});

test("who comes without a token is asked for one, and let in with it", async () => {
  const { token } = await key("ada", "read,write,presence");
  const page = await visitors.visit(address);
  await expect.poll(() => asks(page)).toBe(true);
  expect(await why(page)).toBe("This server asks who you are.");
  await expect.poll(() => focused(page)).toBe("token");

  await signIn(page, "ck_wrong.secret");
  await expect.poll(() => why(page)).toMatch(/does not know this token/);
  await signIn(page, token);

  await expect.poll(() => asks(page)).toBe(false);
  await expect.poll(() => state(page)).toBe("Saved");
  await page.reload();
  await expect.poll(() => state(page)).toBe("Saved");
});

test("who may not enter is told so, and may come as somebody else", async () => {
  const [nobody, ada] = [await key("mallory", "presence"), await key("ada", "read,write,presence")];
  const page = await visitors.visit(`${address}#token=${nobody.token}`);
  await expect.poll(() => asks(page)).toBe(true);
  expect(await why(page)).toMatch(/^You may not enter this room/);

  await signIn(page, ada.token);

  await expect.poll(() => state(page)).toBe("Saved");
});

test("who is revoked is told so, keeps what was typed, and goes on with another token", async () => {
  const [first, second] = [await key("ada", "read,write,presence"), await key("ada", "read,write,presence")];
  const page = await visitors.visit(`${address}#token=${first.token}`);
  await expect.poll(() => state(page)).toBe("Saved");
  await page.keyboard.type("before");
  await expect.poll(() => state(page)).toBe("Saved");

  await server.operate("key", "revoke", first.id);

  await expect.poll(() => asks(page)).toBe(true);
  expect(await why(page)).toMatch(/^You are not signed in/);
  expect(await state(page)).toBe("Not signed in");
  expect(await text(page)).toBe("before");
  await signIn(page, second.token);
  await expect.poll(() => state(page)).toBe("Saved");
});

test("rights that are taken back while one writes are shown in place", async () => {
  const { token } = await key("grace", "read,presence");
  await server.operate("grant", "add", "grace", "--room", `${room}=write`);
  const page = await visitors.visit(`${address}#token=${token}`);
  await expect.poll(() => state(page)).toBe("Saved");

  await server.operate("grant", "remove", "grace", "--room", room);
  await expect.poll(() => state(page)).toBe("Read-only");
  await server.operate("grant", "add", "grace", "--room", `${room}=write`);

  await expect.poll(() => state(page)).toBe("Saved");
});

test("the demo agent works for who sent for it, who may take back what it did", async () => {
  const { token } = await key("ada", "read,write,presence,history");
  const page = await visitors.visit(`${address}#token=${token}`);
  await expect.poll(() => state(page)).toBe("Saved");
  await page.keyboard.type("Over the the fence.");

  await page.locator("#demo").click();
  await expect.poll(() => text(page)).toBe("Over the fence.");
  const who = await page.locator("#agents .agent-head").innerText();
  await page.getByRole("button", { name: /^Undo/ }).click();

  await expect.poll(() => text(page)).toBe("Over the the fence.");
  expect(who).toMatch(/Demo reviewer\s+reviewer, for ada/);
  await page.locator("#by-author").click();
  await expect
    .poll(() => page.locator("#legend").innerText())
    .toMatch(/ada the tester[\s\S]*Took back: “the” was there twice/);
});

test("who may only read brings no agent and sees no past, and is told so", async () => {
  const { token } = await key("grace", "read,presence");
  const page = await visitors.visit(`${address}#token=${token}`);
  await expect.poll(() => state(page)).toBe("Read-only");

  await page.locator("#demo").click();
  await expect.poll(() => page.locator("#agents-problem").innerText()).toBe("You may not do this here.");
  await page.locator("#by-author").click();

  await expect.poll(() => page.locator("#authors-problem").innerText()).toBe("You may not do this here.");
  expect(await page.locator("#demo").innerText()).toBe("Bring the demo agent");
});

test("signing out ends it, and a reload does not bring it back", async () => {
  const { token } = await key("ada", "read,write,presence");
  const page = await visitors.visit(`${address}#token=${token}`);
  await expect.poll(() => myName(page)).toBe("ada the tester");

  await page.locator("#me").click();
  await page.locator("#sign-out").click();
  await expect.poll(() => why(page)).toBe("You have signed out.");
  await page.reload();

  await expect.poll(() => why(page)).toBe("This server asks who you are.");
});

test("a second window is signed in like the first", async () => {
  const { token } = await key("ada", "read,write,presence");
  const page = await visitors.visit(`${address}#token=${token}`);
  await expect.poll(() => state(page)).toBe("Saved");

  const [second] = await Promise.all([page.context().waitForEvent("page"), page.locator("#second").click()]);

  await expect.poll(() => state(second)).toBe("Saved");
  expect(second.url()).toBe(address);
});

test.each(["light", "dark"] as const)("the card that asks is accessible in the %s", async (colorScheme) => {
  const page = await visitors.visit(address, { colorScheme });
  await expect.poll(() => asks(page)).toBe(true);

  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() =>
    (globalThis as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run(),
  );

  expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])).toEqual([]);
});
