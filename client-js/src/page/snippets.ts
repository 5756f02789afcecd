/** Code to copy, made out for the room at hand, and coloured for reading. */

import browser from "./snippets/browser.js.txt";
import python from "./snippets/python.py.txt";

export const SNIPPETS = { browser, python } as const;

export type SnippetName = keyof typeof SNIPPETS;

/** The text to be copied. */
export function madeOut(snippet: string, socketAddress: string, room: string): string {
  return snippet
    .trimEnd()
    .replaceAll("SOCKET_ADDRESS", socketAddress)
    .replaceAll("ROOM_PATH", encodeURIComponent(room));
}

export interface Piece {
  readonly kind: "plain" | "comment" | "string" | "word";
  readonly text: string;
}

const PIECES =
  /(?<comment>\/\/[^\n]*|#[^\n]*)|(?<string>"(?:\\.|[^"\\])*")|(?<word>\b(?:import|from|as|const|new|class|async|await|def|with|lambda|return)\b)/gu;

/** The same text cut into pieces; joined, they are the text again. */
export function pieces(code: string): readonly Piece[] {
  const found: Piece[] = [];
  let at = 0;
  for (const match of code.matchAll(PIECES)) {
    if (match.index > at) found.push({ kind: "plain", text: code.slice(at, match.index) });
    const kind = match.groups?.comment ? "comment" : match.groups?.string ? "string" : "word";
    found.push({ kind, text: match[0] });
    at = match.index + match[0].length;
  }
  if (at < code.length) found.push({ kind: "plain", text: code.slice(at) });
  return found;
}
