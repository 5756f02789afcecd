/** A real server process, with a port and a data directory of its own, that a test may stop, kill and start again. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

export const PYTHON = process.env.PYTHON ?? join(ROOT, ".venv", "bin", "python");

const run = promisify(execFile);

export class Server {
  readonly data = mkdtempSync(join(tmpdir(), "collab-browser-"));
  address = "";
  readonly #flags: readonly string[];
  #process: ChildProcess | undefined;

  constructor(...flags: readonly string[]) {
    this.#flags = flags;
  }

  async start(): Promise<void> {
    if (!existsSync(PYTHON))
      throw new Error(`no Python with the server's packages at ${PYTHON}: run \`make setup\``);
    const port = this.address === "" ? "0" : new URL(this.address).port;
    const flags = ["serve", "--port", port, "--data", this.data, "--drain-seconds", "0.5", ...this.#flags];
    const child = spawn(PYTHON, ["-m", "collab", ...flags], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    const said: string[] = [];
    child.stderr.on("data", (words) => said.push(String(words)));
    for await (const line of createInterface(child.stdout)) {
      const address = /^listening on (http:\S+)/.exec(line)?.[1];
      if (address === undefined) continue;
      this.address = address;
      child.stdout.resume();
      return;
    }
    throw new Error(`the server did not start:\n${said.join("")}`);
  }

  /** Ends it; SIGTERM asks, SIGKILL does not. Answers with the exit code, null when it was killed. */
  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<number | null> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null) return child?.exitCode ?? null;
    const exited = once(child, "exit");
    child.kill(signal);
    const [code] = await exited;
    return code;
  }

  /** As if the machine were too busy for it: it does nothing, and its sockets stay open. */
  pause(): void {
    this.#process?.kill("SIGSTOP");
  }

  resume(): void {
    this.#process?.kill("SIGCONT");
  }

  /** What is on disk, as `collab export` reads it while no server holds the directory. */
  async export(room: string): Promise<string> {
    return this.operate("export", room, "--format", "text", "--root", "text");
  }

  /** What another command says about the same data. */
  async operate(...words: readonly string[]): Promise<string> {
    const { stdout } = await run(PYTHON, ["-m", "collab", ...words, "--data", this.data], { cwd: ROOT });
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    await this.stop("SIGKILL");
    rmSync(this.data, { recursive: true, force: true });
  }
}
