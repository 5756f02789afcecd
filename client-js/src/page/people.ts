/** Who is here: the awareness states of the room, read with distrust, as a list of people and agents. */

import type { Awareness } from "y-protocols/awareness";
import { freeColour, PALETTE, safeColour } from "./colours.ts";
import { MAX_PERSON_LENGTH } from "./names.ts";

const DOINGS = ["idle", "thinking", "writing", "waiting_approval", "error"] as const;

/** What an agent says it is doing. */
export type Doing = (typeof DOINGS)[number];

/** What is known of a member that is a program. */
export interface Agent {
  readonly role: string;
  readonly onBehalfOf: string;
  readonly doing: Doing;
  readonly task: string;
  /** In words, such as what it looks at. */
  readonly detail: string;
  /** The turn that can be stopped; "" for none. */
  readonly turn: string;
  /** What it is about to write, and has not yet. */
  readonly tail: string;
}

export interface Person {
  readonly client: number;
  /** Whom the server says it speaks for; "" where it does not say. */
  readonly principal: string;
  readonly name: string;
  readonly colour: string;
  readonly isMe: boolean;
  /** When they came, by their own clock; 0 where it is not said. */
  readonly since: number;
  /** Null for a person. */
  readonly agent: Agent | null;
}

const MAX_WORDS = 160;
const MAX_TAIL = 256;

/** I come first, the others in an order that is the same everywhere. */
export function people(awareness: Awareness): readonly Person[] {
  const me = awareness.clientID;
  return [...awareness.getStates()]
    .map(([client, state]) => person(client, state, client === me))
    .sort((left, right) => Number(right.isMe) - Number(left.isMe) || left.client - right.client);
}

export function person(client: number, state: unknown, isMe: boolean): Person {
  const user: unknown = isRecord(state) ? state.user : undefined;
  const fields = isRecord(user) ? user : {};
  const name = words(fields.name, MAX_PERSON_LENGTH);
  const since = isRecord(state) && typeof state.since === "number" ? state.since : 0;
  return {
    client,
    principal: typeof fields.id === "string" ? fields.id : "",
    name: name || `Guest ${client % 1000}`,
    colour: safeColour(fields.color, client),
    isMe,
    since,
    agent: fields.kind === "agent" ? agent(fields, isRecord(state) ? state.agent : undefined) : null,
  };
}

function agent(user: Record<string, unknown>, said: unknown): Agent {
  const fields = isRecord(said) ? said : {};
  return {
    role: words(user.role, MAX_PERSON_LENGTH),
    onBehalfOf: words(user.on_behalf_of, MAX_PERSON_LENGTH),
    doing: DOINGS.find((one) => one === fields.status) ?? "idle",
    task: words(fields.task, MAX_WORDS),
    detail: words(fields.detail, MAX_WORDS),
    turn: typeof fields.turn === "string" ? fields.turn : "",
    tail: typeof fields.tail === "string" ? fields.tail.slice(0, MAX_TAIL) : "",
  };
}

function words(said: unknown, length: number): string {
  return typeof said === "string" ? said.trim().slice(0, length) : "";
}

/** Two letters that stand for a name. */
export function initials(name: string): string {
  const [first = "", ...rest] = name.split(/\s+/u).filter(Boolean);
  const letters = [first, rest.at(-1) ?? ""].map((word) => [...word][0] ?? "");
  return letters.join("").toLocaleUpperCase();
}

/** Announce my name, with a colour that is mine alone, and when I came: who came later yields. */
export function announce(awareness: Awareness, name: string): void {
  const others = people(awareness).filter((one) => !one.isMe);
  const taken = new Set(others.map((other) => other.colour));
  const state = awareness.getLocalState() ?? {};
  const before = person(awareness.clientID, state, true).colour;
  const color = hasColour(state) && !taken.has(before) ? before : freeColour(taken, awareness.clientID);
  awareness.setLocalState({ since: Date.now(), ...state, user: { name, color } });
}

/** Whether somebody who was here before me has my colour. */
export function mustChangeColour(awareness: Awareness): boolean {
  const everybody = people(awareness);
  const me = everybody.find((one) => one.isMe);
  if (me === undefined || everybody.length > PALETTE.length) return false;
  return everybody.some((one) => !one.isMe && one.colour === me.colour && isBefore(one, me));
}

function isBefore(one: Person, other: Person): boolean {
  return one.since === other.since ? one.client < other.client : one.since < other.since;
}

function hasColour(state: Record<string, unknown>): boolean {
  return isRecord(state.user) && typeof state.user.color === "string";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
