/** Names: of the room, from the address, and of the person, kept in the browser. */

export const DEFAULT_ROOM = "playground";
export const MAX_ROOM_BYTES = 256;
export const MAX_PERSON_LENGTH = 40;

const MOODS = [
  "Amber",
  "Bold",
  "Calm",
  "Clever",
  "Gentle",
  "Keen",
  "Merry",
  "Nimble",
  "Quiet",
  "Swift",
] as const;
const ANIMALS = ["Badger", "Crane", "Fox", "Hare", "Heron", "Lynx", "Otter", "Owl", "Robin", "Wren"] as const;
const PLACES = ["harbour", "garden", "meadow", "lantern", "orchard", "summit", "willow", "studio"] as const;

type Random = () => number;

function pick<Item>(items: readonly [Item, ...Item[]], random: Random): Item {
  return items[Math.floor(random() * items.length)] ?? items[0];
}

export function randomPerson(random: Random = Math.random): string {
  return `${pick(MOODS, random)} ${pick(ANIMALS, random)}`;
}

export function randomRoom(random: Random = Math.random): string {
  const mood = pick(MOODS, random).toLowerCase();
  return `${mood}-${pick(PLACES, random)}-${Math.floor(random() * 9000) + 1000}`;
}

/** The name in the form the server takes, or the sentence that says what is wrong with it. */
export function checkRoom(
  typed: string,
): { readonly type: "name"; readonly name: string } | { readonly type: "wrong"; readonly reason: string } {
  const name = typed.normalize("NFC").trim();
  if (name === "") return { type: "wrong", reason: "A room needs a name." };
  if (/[\p{Cc}\u2028\u2029]|\p{Cs}/u.test(name)) {
    return { type: "wrong", reason: "A room’s name holds no control characters." };
  }
  if (new TextEncoder().encode(name).length > MAX_ROOM_BYTES) {
    return { type: "wrong", reason: "That name is too long." };
  }
  return { type: "name", name };
}

/** `/?room=NAME` names the room; anything else means the playground everybody starts in. */
export function roomFrom(address: URL): string {
  const checked = checkRoom(address.searchParams.get("room") ?? "");
  return checked.type === "name" ? checked.name : DEFAULT_ROOM;
}

export function addressOf(room: string, page: URL): string {
  return `${page.origin}/?room=${encodeURIComponent(room)}`;
}

/** Where programs find the room. */
export function socketAddress(page: URL): string {
  return `${page.origin.replace(/^http/, "ws")}/ws`;
}

/** The name chosen in this browser, else one that is this tab's alone. */
export function loadPerson(): string {
  const kept =
    read(() => localStorage.getItem("collab.name")) ?? read(() => sessionStorage.getItem("collab.name"));
  if (kept) return kept.slice(0, MAX_PERSON_LENGTH);
  const name = randomPerson();
  read(() => sessionStorage.setItem("collab.name", name));
  return name;
}

export function keepPerson(name: string): void {
  read(() => localStorage.setItem("collab.name", name));
}

// A browser that forbids storage throws; the name then lasts as long as the page.
function read<Answer>(access: () => Answer): Answer | null {
  try {
    return access();
  } catch {
    return null;
  }
}
