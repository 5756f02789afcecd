/** The others as avatars, myself by name, and the card where I change it. */

import type { Awareness } from "y-protocols/awareness";
import type { Provider } from "../provider.ts";
import { inkOn } from "./colours.ts";
import { element, setText, span } from "./elements.ts";
import { keepPerson, loadPerson } from "./names.ts";
import { announce, initials, mustChangeColour, type Person, people } from "./people.ts";

const MAX_AVATARS = 5;

export function showCompany(awareness: Awareness): void {
  let name = loadPerson();
  announce(awareness, name);

  const show = () => {
    if (mustChangeColour(awareness)) return announce(awareness, name);
    const [me, ...everybody] = people(awareness);
    if (me === undefined) return;
    const others = everybody.filter(({ agent }) => agent === null);
    const agents = everybody.filter(({ agent }) => agent !== null);
    document.documentElement.style.setProperty("--me-given", me.colour);
    document.body.dataset.company = others.length > 0 ? "others" : "alone";
    if (element("me-known").hidden) setText("me-name", me.name);
    element("people").replaceChildren(...avatars(others));
    element("agents-here").replaceChildren(...avatars(agents));
  };
  show();
  awareness.on("change", show);

  const input = element<HTMLInputElement>("name");
  // Opening gives it the focus.
  element("me-card").addEventListener("beforetoggle", () => {
    input.value = name;
  });
  input.addEventListener("focus", () => input.select());
  element("me-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = input.value.trim();
    if (chosen === "") return;
    name = chosen;
    keepPerson(name);
    announce(awareness, name);
    element("me-card").hidePopover();
  });
}

/** Where the server knows who one is, its word goes before the name that was chosen here. */
export function showUser(provider: Provider): void {
  const show = () => {
    const { user } = provider.getSnapshot();
    if (user === null) return;
    setText("me-name", user.name);
    setText("me-id", user.id);
    element("me-form").hidden = true;
    element("me-known").hidden = false;
  };
  show();
  provider.subscribe(show);
}

function avatars(members: readonly Person[]): readonly HTMLLIElement[] {
  const more = members.length - MAX_AVATARS;
  return [
    ...members.slice(0, MAX_AVATARS).map(({ name, colour }) => avatar(initials(name), name, colour)),
    ...(more > 0 ? [avatar(`+${more}`, `and ${more} more`)] : []),
  ];
}

function avatar(letters: string, meaning: string, colour?: string): HTMLLIElement {
  const item = document.createElement("li");
  item.className = "avatar";
  item.title = meaning;
  if (colour !== undefined) {
    item.style.setProperty("--who", colour);
    item.style.setProperty("--ink", inkOn(colour));
  }
  const shown = span("", letters);
  shown.setAttribute("aria-hidden", "true");
  item.append(shown, span("hidden", meaning));
  return item;
}
