/** Close codes: which of them end the retries, and what to tell a person. */

export interface Closing {
  readonly code: number;
  readonly reason: string;
}

/** Nothing was heard for too long, so this side gave the connection up. */
export const SILENT: Closing = { code: 4000, reason: "nothing was heard from the server" };

/** The same bytes would be sent again and get the same answer. */
const FINAL_STANDARD_CODES: ReadonlySet<number> = new Set([1003, 1007, 1009]);

const LIMITED = 4429;
const LIMITED_MILLISECONDS = 5000;

const WORDS: Readonly<Record<number, string>> = {
  1003: "the server does not take this kind of message",
  1007: "the server could not read the text",
  1009: "the change is larger than the server takes",
  4400: "the server could not read a message",
  4401: "you are not signed in",
  4403: "you may not enter this room",
  4404: "this room was deleted",
  4408: "the server waited too long",
  4409: "this window’s identity is in use elsewhere",
  4413: "the document is as large as it may be",
  [LIMITED]: "the server has had too much",
};

/** Whether coming back is of no use until something changes. */
export function isFinal(code: number): boolean {
  return (code >= 4400 && code <= 4499 && code !== LIMITED) || FINAL_STANDARD_CODES.has(code);
}

/** Milliseconds before which there is no use in coming back: a server that has had too much says how long in its reason. */
export function pauseAfter({ code, reason }: Closing): number {
  if (code !== LIMITED) return 0;
  const seconds = /retry in (\d{1,4}) s/.exec(reason)?.[1];
  return seconds === undefined ? LIMITED_MILLISECONDS : Number(seconds) * 1000;
}

/** A sentence part for people: the server's own reason stands behind ours, when it gave one. */
export function describe({ code, reason }: Closing): string {
  const words = WORDS[code];
  if (words === undefined) return reason || `the connection was closed (${code})`;
  return reason ? `${words} (${reason})` : words;
}
