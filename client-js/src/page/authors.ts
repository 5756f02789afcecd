/** Colours the text by who wrote it, on demand, and says below it who has which colour. */

import type { Awareness } from "y-protocols/awareness";
import type * as Y from "yjs";
import { inkOn } from "./colours.ts";
import type { Editor } from "./editor.ts";
import { element, setText, span } from "./elements.ts";
import { type Author, type Credit, credits, keyOf, type Run, readBlame } from "./history.ts";
import { people } from "./people.ts";
import type { Problem, Requests } from "./requests.ts";

/** After a change; while changes go on it is asked no more often than this. */
const LOOK_MILLISECONDS = 600;
const MAX_REASONS = 3;

export function showAuthors(text: Y.Text, awareness: Awareness, editor: Editor, requests: Requests): void {
  const button = element<HTMLButtonElement>("by-author");
  let isOn = false;
  let isLooking = false;
  let hasNews = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const look = async () => {
    timer = undefined;
    if (isLooking) {
      hasNews = true;
      return;
    }
    isLooking = true;
    const asked = editor.capture();
    try {
      const answer = await requests.read("blame", { root: "text" });
      if (isOn) show(readBlame(answer, asked.text), asked.colour);
    } catch (problem) {
      if (isOn) setText("authors-problem", (problem as Problem).message);
    }
    isLooking = false;
    if (isOn && hasNews) soon();
    hasNews = false;
  };
  const soon = () => {
    if (isOn && timer === undefined) timer = setTimeout(() => void look(), LOOK_MILLISECONDS);
  };

  const show = (runs: readonly Run[], colour: ReturnType<Editor["capture"]>["colour"]) => {
    const everybody = credits(runs, people(awareness));
    const byKey = new Map(everybody.map((one) => [one.key, one]));
    colour(
      runs.map((run) => ({
        start: run.start,
        end: run.end,
        colour: byKey.get(keyOf(run.author))?.colour ?? "",
        isAgent: run.author.isAgent,
        title: titled(run.author, run.milliseconds),
      })),
    );
    setText("authors-problem", "");
    element("legend").replaceChildren(...everybody.map(entry));
    setText("authors-none", everybody.length === 0 ? "Nothing is written here yet." : "");
  };

  button.addEventListener("click", () => {
    isOn = !isOn;
    button.setAttribute("aria-pressed", String(isOn));
    element("authors").hidden = !isOn;
    if (isOn) return void look();
    clearTimeout(timer);
    timer = undefined;
    editor.plain();
  });
  text.observe(soon);
}

function titled({ name, onBehalfOf, reason }: Author, milliseconds: number): string {
  const who = onBehalfOf === "" ? name : `${name} for ${onBehalfOf}`;
  const time = new Date(milliseconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return [reason === "" ? who : `${who}: ${reason}`, time].join("\n");
}

function entry(one: Credit): HTMLLIElement {
  const item = document.createElement("li");
  item.className = one.isAgent ? "credit credit-agent" : "credit";
  item.style.setProperty("--who", one.colour);
  item.style.setProperty("--ink", inkOn(one.colour));
  const swatch = span("swatch", "");
  swatch.setAttribute("aria-hidden", "true");
  const kind = one.isAgent
    ? ["agent", one.onBehalfOf && `for ${one.onBehalfOf}`].filter(Boolean).join(" ")
    : "";
  const reasons = one.reasons.slice(0, MAX_REASONS).join("; ");
  const more = one.reasons.length > MAX_REASONS ? ` and ${one.reasons.length - MAX_REASONS} more` : "";
  item.append(swatch, span("credit-name", one.name));
  if (kind !== "") item.append(span("quiet", kind));
  if (reasons !== "") item.append(span("credit-reasons", reasons + more));
  return item;
}
