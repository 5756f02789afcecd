/** Requests about one room, in the name of whoever is signed in. */

import type { Session } from "./session.ts";

/** The server said no, or nothing; the message is fit to be shown. */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export class Requests {
  readonly #room: string;
  readonly #session: Session;

  constructor(room: string, session: Session) {
    this.#room = room;
    this.#session = session;
  }

  /** What a path below the room's own holds. Throws `Problem`. */
  async read(path: string, query: Record<string, string>): Promise<unknown> {
    return this.#ask("GET", `${this.#below(path)}?${new URLSearchParams(query)}`);
  }

  /** Do what a path below the room's own is for. Throws `Problem`. */
  async act(path: string, body: object): Promise<unknown> {
    return this.#ask("POST", this.#below(path), body);
  }

  /** Have the demo agent come to this room, or leave it. Throws `Problem`. */
  async demo(method: "POST" | "DELETE"): Promise<unknown> {
    return this.#ask(method, `/playground/agent?${new URLSearchParams({ room: this.#room })}`);
  }

  #below(path: string): string {
    return `/v1/rooms/${encodeURIComponent(this.#room)}/${path}`;
  }

  async #ask(method: string, address: string, body?: object): Promise<unknown> {
    let response: Response;
    try {
      response = await fetch(address, {
        method,
        headers: { ...this.#session.headers, ...(body && { "content-type": "application/json" }) },
        ...(body && { body: JSON.stringify(body) }),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch {
      throw new Problem(0, "The server cannot be reached.");
    }
    const answer: unknown = await response.json().catch(() => null);
    if (!response.ok) throw new Problem(response.status, reason(response.status, answer));
    return answer;
  }
}

function reason(status: number, answer: unknown): string {
  if (status === 401) return "This needs you to be signed in with a token.";
  if (status === 403) return "You may not do this here.";
  const said = typeof answer === "object" && answer !== null && "detail" in answer ? answer.detail : "";
  if (typeof said !== "string" || said === "") return `The server could not do this (${status}).`;
  return `${said.slice(0, 1).toLocaleUpperCase()}${said.slice(1)}.`;
}
