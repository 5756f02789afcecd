/** How many words the document has. */

import type * as Y from "yjs";
import { setText } from "./elements.ts";

/** The whole text is read for it, so not at every keystroke. */
const COUNT_MILLISECONDS = 250;

export function showWords(text: Y.Text): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = () => {
    timer = undefined;
    const count = countWords(text.toString());
    setText("words", count === 1 ? "1 word" : `${count} words`);
  };
  show();
  text.observe(() => {
    if (timer === undefined) timer = setTimeout(show, COUNT_MILLISECONDS);
  });
}

export function countWords(text: string): number {
  return text.match(/[\p{L}\p{N}][\p{L}\p{N}'’-]*/gu)?.length ?? 0;
}
