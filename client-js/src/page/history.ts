/** What the server says of a document's past, read with distrust: who wrote what, and in which turn. */

import { PALETTE } from "./colours.ts";
import type { Person } from "./people.ts";

/** Whom the server names where it asks nobody who they are. */
const ANONYMOUS = "anonymous";

/** Who wrote something, and in which turn, when it was one. */
export interface Author {
  readonly principal: string;
  /** To be shown; what the server has of name and principal. */
  readonly name: string;
  readonly isAgent: boolean;
  readonly onBehalfOf: string;
  readonly turn: string;
  readonly reason: string;
  readonly task: string;
  /** The turn that this one takes back; "" for none. */
  readonly undoes: string;
}

/** A run of the text by one author, in places as an editor counts them: UTF-16. */
export interface Run {
  readonly start: number;
  readonly end: number;
  readonly author: Author;
  readonly milliseconds: number;
}

/** A turn of an agent, and whether it stands. */
export interface Done {
  readonly author: Author;
  readonly milliseconds: number;
  /** The turn that took it back; "" while it stands. */
  readonly undoneBy: string;
}

/** The runs of an answer to `blame` over this text, in order. What does not fit is passed over. */
export function readBlame(answer: unknown, text: string): readonly Run[] {
  const said = record(answer);
  const authors = list(said.authors).map(readAuthor);
  const spans = list(said.spans)
    .map(record)
    .flatMap(({ start, end, author, time }) => {
      const who = authors[count(author)];
      return who === undefined ? [] : [{ start: count(start), end: count(end), who, time: count(time) }];
    })
    .sort((left, right) => left.start - right.start);
  const places = new Places(text);
  const runs: Run[] = [];
  for (const { start, end, who, time } of spans) {
    const from = Math.max(places.of(start), runs.at(-1)?.end ?? 0);
    const to = places.of(end);
    if (to > from) runs.push({ start: from, end: to, author: who, milliseconds: time });
  }
  return runs;
}

/** Walks a text once: the server counts characters, an editor UTF-16 units. Asked in rising order. */
class Places {
  #characters = 0;
  #units = 0;

  constructor(readonly text: string) {}

  of(characters: number): number {
    while (this.#characters < characters && this.#units < this.text.length) {
      this.#units += (this.text.codePointAt(this.#units) ?? 0) > 0xffff ? 2 : 1;
      this.#characters += 1;
    }
    return this.#units;
  }
}

/** The turns of agents in an answer to `activity`, the latest first; an undo stands with the turn that it takes back. */
export function readActivity(answer: unknown): readonly Done[] {
  const said = record(answer);
  const authors = list(said.authors).map(readAuthor);
  return list(said.entries)
    .map(record)
    .flatMap(({ author, ended, undone_by }) => {
      const who = authors[count(author)];
      if (who === undefined || !who.isAgent || who.turn === "" || who.undoes !== "") return [];
      return [{ author: who, milliseconds: count(ended), undoneBy: word(undone_by) }];
    });
}

function readAuthor(said: unknown): Author {
  const fields = record(said);
  const principal = word(fields.principal);
  return {
    principal,
    name: word(fields.name) || (principal === ANONYMOUS ? "" : principal) || "Somebody",
    isAgent: fields.kind === "agent",
    onBehalfOf: word(fields.on_behalf_of),
    turn: word(fields.turn),
    reason: word(fields.reason),
    task: word(fields.task),
    undoes: word(fields.undoes),
  };
}

/** One who wrote, with a colour, and what for. */
export interface Credit {
  readonly key: string;
  readonly name: string;
  readonly isAgent: boolean;
  readonly onBehalfOf: string;
  readonly colour: string;
  readonly reasons: readonly string[];
}

/** The same for all turns of somebody. */
export function keyOf({ principal, name, isAgent, onBehalfOf }: Author): string {
  return JSON.stringify([principal, name, isAgent, onBehalfOf]);
}

/** Everybody who wrote these runs, in the order of the text. Who is here keeps the colour of the caret. */
export function credits(runs: readonly Run[], here: readonly Person[]): readonly Credit[] {
  const found = new Map<string, { author: Author; reasons: Set<string> }>();
  for (const { author } of runs) {
    const key = keyOf(author);
    const known = found.get(key) ?? { author, reasons: new Set<string>() };
    if (author.reason !== "") known.reasons.add(author.reason);
    found.set(key, known);
  }
  const taken = new Set<string>();
  const colourFor = (author: Author): string => {
    const present = here.find((one) => isSame(one, author));
    const own = PALETTE[hash(keyOf(author)) % PALETTE.length] ?? PALETTE[0];
    const free = [own, ...PALETTE].find(
      (colour) => !taken.has(colour) && !here.some((one) => one.colour === colour),
    );
    const colour = present?.colour ?? free ?? own;
    taken.add(colour);
    return colour;
  };
  return [...found].map(([key, { author, reasons }]) => ({
    key,
    name: author.name,
    isAgent: author.isAgent,
    onBehalfOf: author.onBehalfOf,
    colour: colourFor(author),
    reasons: [...reasons],
  }));
}

function isSame(person: Person, author: Author): boolean {
  if ((person.agent !== null) !== author.isAgent) return false;
  return person.name === author.name && (person.principal === "" || person.principal === author.principal);
}

function hash(words: string): number {
  let found = 0;
  for (const character of words) found = (found * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
  return found;
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function word(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function count(value: unknown): number {
  return typeof value === "number" && value >= 0 ? value : 0;
}
