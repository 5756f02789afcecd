/** Who is here: the awareness states of the room, read with distrust, as a list of people. */

import type { Awareness } from "y-protocols/awareness";
import { freeColour, PALETTE, safeColour } from "./colours.ts";
import { MAX_PERSON_LENGTH } from "./names.ts";

export interface Person {
  readonly client: number;
  readonly name: string;
  readonly colour: string;
  readonly isMe: boolean;
  /** When they came, by their own clock; 0 where it is not said. */
  readonly since: number;
}

/** I come first, the others in an order that is the same everywhere. */
export function people(awareness: Awareness): readonly Person[] {
  const me = awareness.clientID;
  return [...awareness.getStates()]
    .map(([client, state]) => person(client, state, client === me))
    .sort((left, right) => Number(right.isMe) - Number(left.isMe) || left.client - right.client);
}

export function person(client: number, state: unknown, isMe: boolean): Person {
  const user: unknown = isRecord(state) ? state.user : undefined;
  const { name, color } = isRecord(user) ? user : { name: undefined, color: undefined };
  const said = typeof name === "string" ? name.trim().slice(0, MAX_PERSON_LENGTH) : "";
  const since = isRecord(state) && typeof state.since === "number" ? state.since : 0;
  return { client, name: said || `Guest ${client % 1000}`, colour: safeColour(color, client), isMe, since };
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
