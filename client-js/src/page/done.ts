/** What agents have changed lately, turn by turn, each with a button that takes it back or brings it again. */

import type { Awareness } from "y-protocols/awareness";
import type { Provider } from "../provider.ts";
import { element, setText, span } from "./elements.ts";
import { type Author, type Done, readActivity } from "./history.ts";
import { type Person, people } from "./people.ts";
import type { Problem, Requests } from "./requests.ts";

const MAX_SHOWN = 8;
/** Entries that are read, those of people among them. */
const MAX_READ = 100;
/** Characters of what is said of an undo. */
const MAX_REASON = 200;
/** After a turn has begun or ended. */
const TURN_MILLISECONDS = 700;
/** After any other change, which may take a turn back: seldom, and not all windows at once. */
const CHANGE_MILLISECONDS = 4000;

/** In a few words what a turn was. */
export function told({ author }: Done): string {
  return author.reason || author.task || "Changed the text";
}

export function showDone(provider: Provider, awareness: Awareness, requests: Requests): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = Number.POSITIVE_INFINITY;
  let isLooking = false;
  let hasNews = false;
  let shown = "[]";
  /** Who may not read the past is not shown it, until the next sign-in. */
  let mayRead = true;

  const look = async () => {
    clearTimeout(timer);
    due = Number.POSITIVE_INFINITY;
    if (isLooking) {
      hasNews = true;
      return;
    }
    isLooking = true;
    try {
      show(readActivity(await requests.read("activity", { limit: String(MAX_READ) })));
    } catch (problem) {
      // What is shown already stays; the next change is another occasion.
      mayRead = ![401, 403].includes((problem as Problem).status);
    }
    isLooking = false;
    if (hasNews) lookAfter(TURN_MILLISECONDS);
    hasNews = false;
  };
  /** Or before, when that is decided already. */
  const lookAfter = (milliseconds: number) => {
    const at = performance.now() + milliseconds;
    if (!mayRead || at >= due) return;
    clearTimeout(timer);
    due = at;
    timer = setTimeout(() => void look(), milliseconds);
  };

  const show = (done: readonly Done[]) => {
    const latest = done.slice(0, MAX_SHOWN);
    const told = JSON.stringify(latest);
    if (told === shown) return;
    shown = told;
    element("done").hidden = latest.length === 0;
    const focused = document.activeElement?.closest<HTMLElement>("#turns li")?.dataset.turn;
    element("turns").replaceChildren(...latest.map(item));
    if (focused !== undefined) {
      document.querySelector<HTMLElement>(`#turns li[data-turn="${CSS.escape(focused)}"] button`)?.focus();
    }
  };

  const item = (done: Done): HTMLLIElement => {
    const { author, milliseconds, undoneBy } = done;
    const line = document.createElement("li");
    line.className = "turn";
    line.dataset.turn = author.turn;
    line.dataset.undone = String(undoneBy !== "");
    const words = document.createElement("div");
    words.append(span("turn-what", told(done)), span("turn-who", credit(author, milliseconds)));
    if (undoneBy !== "") words.append(span("turn-state", " · Taken back"));
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = undoneBy === "" ? "Undo" : "Redo";
    button.setAttribute("aria-label", `${button.textContent}: ${told(done)}, by ${author.name}`);
    button.addEventListener("click", () => void decide(done, button));
    line.append(words, button);
    return line;
  };

  const decide = async (done: Done, button: HTMLButtonElement) => {
    const { author, undoneBy } = done;
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    setText("agents-problem", "");
    const verb = undoneBy === "" ? "undo" : "redo";
    try {
      await requests.act(`turns/${encodeURIComponent(author.turn)}/${verb}`, {
        principal: author.principal,
        reason: [...`${undoneBy === "" ? "Took back" : "Brought back"}: ${told(done)}`]
          .slice(0, MAX_REASON)
          .join(""),
      });
      setText("agents-announcer", undoneBy === "" ? "Taken back." : "It is there again.");
    } catch (problem) {
      setText("agents-problem", (problem as Problem).message);
    }
    button.setAttribute("aria-disabled", "false");
    void look();
  };

  // Without agents there is nothing to ask for again and again.
  let turns = "";
  provider.doc.on("update", () => {
    if (turns !== "" || shown !== "[]") lookAfter(CHANGE_MILLISECONDS * (1 + Math.random()));
  });
  awareness.on("change", () => {
    const before = turns;
    turns = turnsOf(people(awareness));
    if (turns !== before) lookAfter(TURN_MILLISECONDS);
  });
  let wasSynced = false;
  provider.subscribe(() => {
    const { isSynced } = provider.getSnapshot();
    if (isSynced && !wasSynced) {
      mayRead = true;
      // A room that was never written to has no past to ask for.
      if (provider.doc.store.clients.size > 0) void look();
    }
    wasSynced = isSynced;
  });
}

/** What changes when an agent comes or goes, and when it begins or ends a turn. */
function turnsOf(members: readonly Person[]): string {
  return members.flatMap(({ client, agent }) => (agent === null ? [] : [`${client} ${agent.turn}`])).join();
}

function credit({ name, onBehalfOf }: Author, milliseconds: number): string {
  const time = new Date(milliseconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return [name, onBehalfOf && `for ${onBehalfOf}`, time].filter(Boolean).join(", ");
}
