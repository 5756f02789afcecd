/** A person in a browser and two agents in other processes, in one document on two replicas; one agent is killed half-way. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PYTHON, ROOT, Server } from "./serving.ts";
import { launch, names, state, text, Visitors } from "./visiting.ts";

const WORDS = 120;

/** Writes that many words into a section, like a model that takes its time. */
const AGENT = `
import asyncio, sys, collab

async def words(name):
    for number in range(${WORDS}):
        yield f" {name}{number}"
        await asyncio.sleep(0.04)

async def main(url, name, section):
    async with collab.connect(url, name=name) as agent:
        doc = await agent.open("plan")
        async with doc.turn(reason=f"Writes on {section}") as turn:
            await turn.stream(doc.read().section(section).end, words(name))

asyncio.run(main(*sys.argv[1:]))
`;

const folder = mkdtempSync(join(tmpdir(), "collab-redis-"));
const started: ChildProcess[] = [];
const replicas: Server[] = [];
let browser: Browser;
let visitors: Visitors;

beforeAll(async () => {
  const port = await freePort();
  run("redis-server", "--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "");
  for (let replica = 0; replica < 2; replica++) {
    replicas.push(new Server("--redis", `redis://127.0.0.1:${port}/0`));
  }
  [browser] = await Promise.all([launch(), ...replicas.map((replica) => replica.start())]);
  visitors = new Visitors(browser);
});

afterAll(async () => {
  await visitors.leave();
  await browser.close();
  await Promise.all(replicas.map((replica) => replica[Symbol.asyncDispose]()));
  for (const child of started) if (child.exitCode === null) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test("nobody loses a word, and what the killed agent wrote is taken back from the page", async () => {
  const [ada, grace] = [await visit(0), await visit(1)];
  await ada.keyboard.type("# Plan\n\n## Ants\n\nSmall.\n\n## Bees\n\nLoud.\n\n## People\n\n");
  await expect.poll(() => document(1)).toContain("## People");

  const ant = run(PYTHON, "-c", AGENT, address(1), "ant", "Ants");
  const bee = run(PYTHON, "-c", AGENT, address(0), "bee", "Bees");
  const beeHasEnded = once(bee, "exit");
  await expect.poll(() => agents(ada)).toEqual(["ant", "bee"]);
  await ada.keyboard.type("Ada writes while both write. ", { delay: 30 });
  await expect.poll(() => document(0)).toContain(`ant${WORDS / 3}`);
  ant.kill("SIGKILL");
  await ada.keyboard.type("And after one is gone.", { delay: 30 });
  const [code] = await beeHasEnded;

  await expect.poll(() => document(0)).toContain(`bee${WORDS - 1}`);
  await expect.poll(async () => (await document(1)) === (await document(0))).toBe(true);
  const [ants = "", bees = "", people = ""] = sections(await document(0));
  expect(code).toBe(0);
  expect(written(ants, "ant", "Small.")).toBeGreaterThanOrEqual(WORDS / 3);
  expect(written(ants, "ant", "Small.")).toBeLessThan(WORDS);
  expect(written(bees, "bee", "Loud.")).toBe(WORDS);
  expect(people).toBe("Ada writes while both write. And after one is gone.");
  await expect.poll(() => agents(grace)).toEqual([]);
  expect(await names(grace)).toHaveLength(1);

  await grace.getByRole("button", { name: "Undo: Writes on Ants" }).click();

  await expect.poll(async () => sections(await document(0))).toEqual(["Small.", bees, people]);
  await expect.poll(async () => sections(await text(ada))).toEqual(["Small.", bees, people]);
  await expect.poll(async () => sections(await text(grace))).toEqual(["Small.", bees, people]);
  expect(visitors.complaints).toEqual([]);
});

function address(replica: number): string {
  return replicas[replica]?.address ?? "";
}

async function visit(replica: number): Promise<Page> {
  // High enough for the whole text: an editor draws no more than what is in sight.
  const page = await visitors.visit(`${address(replica)}/?room=plan`, {
    viewport: { width: 1280, height: 1600 },
  });
  await expect.poll(() => state(page)).toBe("Saved");
  return page;
}

async function document(replica: number): Promise<string> {
  const answer = await fetch(`${address(replica)}/v1/rooms/plan/document?format=text&root=text`);
  return answer.text();
}

async function agents(page: Page): Promise<string[]> {
  return (await page.locator("#agents .agent-name").allInnerTexts()).sort();
}

/** What stands under the three headings. */
function sections(whole: string): string[] {
  return whole
    .split(/^## .*$/m)
    .slice(1)
    .map((section) => section.trim());
}

/** How many words an agent has written behind what was there: from the first on, in order, each of them whole. */
function written(section: string, name: string, before: string): number {
  const count = section.split(` ${name}`).length - 1;
  const expected = Array.from({ length: count }, (_, number) => ` ${name}${number}`).join("");
  expect(section).toBe(before + expected);
  return count;
}

function run(command: string, ...words: readonly string[]): ChildProcess {
  const child = spawn(command, words, { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
  started.push(child);
  return child;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const found = server.address();
  server.close();
  await once(server, "close");
  if (found === null || typeof found === "string") throw new Error("there is no port");
  return found.port;
}
