/** The agents that are here: who they are, what they are doing and for whom, with a button that stops each. */

import type { Awareness } from "y-protocols/awareness";
import type { Provider } from "../provider.ts";
import { inkOn } from "./colours.ts";
import { element, setText, span } from "./elements.ts";
import { type Agent, type Doing, initials, type Person, people } from "./people.ts";
import type { Problem, Requests } from "./requests.ts";

/** As examples/reviewer.py calls itself. */
const DEMO = "Demo reviewer";
/** After this long a stop that changed nothing may be asked for again. */
const STOPPING_MILLISECONDS = 3000;
/** For one that was sent for to show up. */
const COMING_MILLISECONDS = 15_000;

const DOING: Readonly<Record<Doing, string>> = {
  idle: "Idle",
  thinking: "Thinking",
  writing: "Writing",
  waiting_approval: "Waits for approval",
  error: "Has a problem",
};

/** What stands behind the status: the words of the agent itself. */
export function explained({ detail, task }: Agent): string {
  return detail || task;
}

/** Words on what an agent is, beside its name. */
export function described({ role, onBehalfOf }: Agent): string {
  return [role, onBehalfOf && `for ${onBehalfOf}`].filter(Boolean).join(", ");
}

/** What a screen reader is told when the agents change; what they write is not worth a word each. */
export function news(before: readonly Person[], now: readonly Person[]): string {
  const came = now.filter((one) => !before.some((other) => other.client === one.client));
  const left = before.filter((one) => !now.some((other) => other.client === one.client));
  const troubled = now.filter((one) => {
    const then = before.find((other) => other.client === one.client)?.agent?.doing;
    const doing = one.agent?.doing;
    return then !== undefined && then !== doing && (doing === "waiting_approval" || doing === "error");
  });
  return [
    ...came.map(({ name }) => `${name}, an agent, is here.`),
    ...left.map(({ name }) => `${name} has left.`),
    ...troubled.map(({ name, agent }) => `${name}: ${agent ? DOING[agent.doing] : ""}.`),
  ].join(" ");
}

export function showAgents(awareness: Awareness, provider: Provider, requests: Requests): void {
  const rows = new Map<number, Row>();
  let before: readonly Person[] = [];

  const show = () => {
    const agents = people(awareness).filter(({ agent, isMe }) => agent !== null && !isMe);
    for (const [client, row] of rows) {
      if (agents.some((one) => one.client === client)) continue;
      row.remove();
      rows.delete(client);
    }
    for (const one of agents) {
      const row = rows.get(one.client) ?? new Row((turn) => provider.cancel(turn, one.principal));
      if (!rows.has(one.client)) element("agents").append(row.item);
      rows.set(one.client, row);
      row.show(one);
    }
    element("agents-none").hidden = agents.length > 0;
    const words = news(before, agents);
    if (words !== "") setText("agents-announcer", words);
    before = agents;
  };
  show();
  awareness.on("change", show);
  showDemo(awareness, requests);
}

/** One agent in the list. It stays the same element while its agent is here, so that the focus stays too. */
class Row {
  readonly item = document.createElement("li");
  readonly #badge = span("badge", "");
  readonly #name = span("agent-name", "");
  readonly #what = span("agent-what", "");
  readonly #doing = span("doing", "");
  readonly #detail = span("agent-detail", "");
  readonly #stop = document.createElement("button");
  #turn = "";
  /** The turn that was asked to end. */
  #stopping = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(cancel: (turn: string) => void) {
    this.item.className = "agent";
    this.#badge.setAttribute("aria-hidden", "true");
    const lamp = span("lamp", "");
    lamp.setAttribute("aria-hidden", "true");
    const state = span("agent-state", "");
    state.append(lamp, this.#doing, this.#detail);
    const head = span("agent-head", "");
    head.append(this.#name, this.#what);
    const text = document.createElement("div");
    text.append(head, state);
    this.#stop.type = "button";
    this.#stop.className = "small";
    this.#stop.addEventListener("click", () => {
      if (this.#turn === "" || this.#stopping === this.#turn) return;
      cancel(this.#turn);
      this.#stopping = this.#turn;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#settle(""), STOPPING_MILLISECONDS);
      this.#settle(this.#turn);
    });
    this.item.append(this.#badge, text, this.#stop);
  }

  show(one: Person): void {
    const { agent } = one;
    if (agent === null) return;
    this.item.style.setProperty("--who", one.colour);
    this.item.style.setProperty("--ink", inkOn(one.colour));
    this.item.dataset.doing = agent.doing;
    set(this.#badge, initials(one.name));
    set(this.#name, one.name);
    set(this.#what, described(agent));
    set(this.#doing, DOING[agent.doing]);
    set(this.#detail, explained(agent) && ` · ${explained(agent)}`);
    this.#stop.setAttribute("aria-label", `Stop ${one.name}`);
    this.#turn = agent.doing === "idle" ? "" : agent.turn;
    this.#settle(this.#stopping === this.#turn ? this.#stopping : "");
  }

  remove(): void {
    clearTimeout(this.#timer);
    this.item.remove();
  }

  /** It keeps its place and the focus while there is nothing to stop. */
  #settle(stopping: string): void {
    this.#stopping = stopping;
    set(this.#stop, stopping === "" ? "Stop" : "Stopping…");
    this.#stop.setAttribute("aria-disabled", String(this.#turn === "" || stopping !== ""));
  }
}

/** The button that has the demo agent come, or leave. */
function showDemo(awareness: Awareness, requests: Requests): void {
  const button = element<HTMLButtonElement>("demo");
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether it was sent for, or away, and has not done so yet. */
  let waiting: boolean | null = null;
  const isHere = () => people(awareness).some(({ name, agent }) => agent !== null && name === DEMO);

  const show = () => {
    const here = isHere();
    if (waiting === here) settle(null);
    const words = here ? "Send the demo agent away" : "Bring the demo agent";
    const busy = here ? "It is leaving…" : "It is coming…";
    set(button, waiting === null ? words : busy);
    button.setAttribute("aria-disabled", String(waiting !== null));
  };
  const settle = (next: boolean | null) => {
    waiting = next;
    clearTimeout(timer);
    if (next === null) return;
    timer = setTimeout(() => {
      settle(null);
      show();
    }, COMING_MILLISECONDS);
  };
  button.addEventListener("click", async () => {
    if (waiting !== null) return;
    const here = isHere();
    settle(!here);
    setText("agents-problem", "");
    show();
    try {
      await requests.demo(here ? "DELETE" : "POST");
    } catch (problem) {
      settle(null);
      const { status, message } = problem as Problem;
      setText("agents-problem", status === 404 && !here ? "This server has no demo agent." : message);
      show();
    }
  });
  show();
  awareness.on("change", show);
}

function set(target: HTMLElement, words: string): void {
  if (target.textContent !== words) target.textContent = words;
}
