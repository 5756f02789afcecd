/**
 * Who one is. A token comes in the fragment of an address, which browsers send to nobody, or is typed in; it goes to
 * the server in a header alone, for a ticket that is good for one connection.
 */

import { Refusal } from "../provider.ts";

/** What the fragment of the page's address has brought. */
export type Brought =
  | { readonly type: "token"; readonly token: string }
  | { readonly type: "ticket"; readonly ticket: string }
  | { readonly type: "nothing" };

const KEPT = "collab.token";

export function broughtBy(address: URL): Brought {
  const given = new URLSearchParams(address.hash.slice(1));
  const token = given.get("token")?.trim() ?? "";
  const ticket = given.get("ticket")?.trim() ?? "";
  if (token !== "") return { type: "token", token };
  return ticket === "" ? { type: "nothing" } : { type: "ticket", ticket };
}

/** As `broughtBy`, and out of sight, out of the history, and out of what is copied from the address bar. */
export function takeFragment(): Brought {
  const address = new URL(location.href);
  const brought = broughtBy(address);
  if (brought.type !== "nothing") history.replaceState(history.state, "", address.pathname + address.search);
  return brought;
}

export class Session {
  readonly #room: string;
  #token: string;
  /** Brought in the address, for the first connection. */
  #ticket: string;
  #mayWrite: boolean | null = null;

  constructor(room: string, brought: Brought) {
    this.#room = room;
    this.#ticket = "";
    this.#token = kept();
    this.take(brought);
  }

  /** Go on with what an address has brought. */
  take(brought: Brought): void {
    if (brought.type === "token") this.signIn(brought.token);
    if (brought.type === "ticket") {
      this.signOut();
      this.#ticket = brought.ticket;
    }
  }

  /** Whether a token is at hand, with which another window may be opened. */
  get hasToken(): boolean {
    return this.#token !== "";
  }

  /** What the server said when it was last asked for a ticket; null when it has not been. */
  get mayWrite(): boolean | null {
    return this.#mayWrite;
  }

  /** What a request shows: nothing where there is no token. */
  get headers(): Record<string, string> {
    return this.#token === "" ? {} : { authorization: `Bearer ${this.#token}` };
  }

  signIn(token: string): void {
    this.#token = token.trim();
    this.#ticket = "";
    keep(this.#token);
  }

  signOut(): void {
    this.signIn("");
  }

  /** A ticket for the next connection; "" when there is nothing to show. Throws `Refusal` when asking again is of no use. */
  ticket = async (): Promise<string> => {
    const brought = this.#ticket;
    this.#ticket = "";
    this.#mayWrite = null;
    if (brought !== "" || this.#token === "") return brought;
    const response = await fetch("/v1/tickets", {
      method: "POST",
      headers: { ...this.headers, "content-type": "application/json" },
      body: JSON.stringify({ room: this.#room }),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (response.status === 401)
      throw new Refusal(4401, "the server does not know this token, or it has ended");
    if (response.status === 403) throw new Refusal(4403, "");
    // Without access control there are no tickets, and none is needed.
    if (response.status === 404 || response.status === 409) return "";
    if (!response.ok) throw new Error(`no ticket: ${response.status}`);
    const answer = (await response.json()) as { ticket?: unknown; operations?: unknown };
    if (Array.isArray(answer.operations)) this.#mayWrite = answer.operations.includes("write");
    return String(answer.ticket ?? "");
  };
}

// Of this tab alone: it survives a reload and ends with the tab.
function kept(): string {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

function keep(token: string): void {
  try {
    if (token === "") sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, token);
  } catch {
    // A browser that forbids storage: the token lasts as long as the page.
  }
}
