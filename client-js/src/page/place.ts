/** Where we are: the room's name as a field that leads elsewhere, and the links to the same room and to an empty one. */

import { element, setText } from "./elements.ts";
import { addressOf, checkRoom, DEFAULT_ROOM, randomRoom } from "./names.ts";

export function showPlace(room: string, page: URL, leave: () => void): void {
  document.title = room === DEFAULT_ROOM ? "collab" : `${room} · collab`;
  showField(room, page, leave);
  showSecondWindow(addressOf(room, page));
  element<HTMLAnchorElement>("new-room").href = addressOf(randomRoom(), page);
}

function showField(room: string, page: URL, leave: () => void): void {
  const input = element<HTMLInputElement>("room");
  const typed = (words: string) => {
    if (input.value !== words) input.value = words;
    input.parentElement?.setAttribute("data-typed", words || " ");
    setText("room-problem", "");
  };
  typed(room);
  input.addEventListener("input", () => typed(input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    typed(room);
    leave();
  });
  element("room-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const checked = checkRoom(input.value);
    if (checked.type === "wrong") return setText("room-problem", checked.reason);
    if (checked.name === room) return leave();
    location.assign(addressOf(checked.name, page));
  });
}

/** A window beside this one; with a modifier, or on a small screen, a link like any other. */
function showSecondWindow(address: string): void {
  const link = element<HTMLAnchorElement>("second");
  link.href = address;
  link.addEventListener("click", (event) => {
    const width = Math.floor(screen.availWidth / 2);
    if (event.ctrlKey || event.metaKey || event.shiftKey || width < 480) return;
    event.preventDefault();
    const place = `left=${width},top=0,width=${width},height=${screen.availHeight}`;
    const isAlone = link.rel === "noopener";
    window.open(address, "_blank", isAlone ? `popup,noopener,${place}` : `popup,${place}`);
  });
}
