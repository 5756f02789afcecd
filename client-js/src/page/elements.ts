/** The elements of index.html, by their ids. */

export function element<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as Kind;
}

/** Touches the page only when the words are others: what is read out or selected stays undisturbed. */
export function setText(id: string, words: string): void {
  const target = element(id);
  if (target.textContent !== words) target.textContent = words;
}

/** Words in an element of their own, never as markup. */
export function span(className: string, words: string): HTMLSpanElement {
  const made = document.createElement("span");
  made.className = className;
  made.textContent = words;
  return made;
}
