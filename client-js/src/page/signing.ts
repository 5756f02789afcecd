/** Signing in: the card that asks for a token when the server lets nobody in without one, and the way out. */

import type { Provider } from "../provider.ts";
import { element, setText } from "./elements.ts";
import { type Session, takeFragment } from "./session.ts";

const ASKING: ReadonlySet<number> = new Set([4401, 4403]);

export function showSigning(provider: Provider, session: Session): void {
  const card = element("sign-in-card");
  const input = element<HTMLInputElement>("token");
  let asked: unknown = null;

  const show = () => {
    const { link, user } = provider.getSnapshot();
    const signedIn = session.hasToken || user !== null;
    document.body.dataset.signed = signedIn ? "in" : "out";
    element("sign-out").hidden = !session.hasToken;
    const second = element<HTMLAnchorElement>("second");
    // A window that this one opened starts with this one's token.
    second.rel = session.hasToken ? "opener" : "noopener";
    if (link.type !== "stopped" || !ASKING.has(link.code)) {
      if (link.type === "connected") card.hidePopover();
      asked = null;
      return;
    }
    if (asked === link) return;
    asked = link;
    setText("sign-in-why", why(link.code, link.reason, signedIn));
    element("state-card").hidePopover();
    card.showPopover();
    input.focus();
  };
  show();
  provider.subscribe(show);

  // A link that signs in, opened where the page is open already.
  addEventListener("hashchange", () => {
    const brought = takeFragment();
    if (brought.type === "nothing") return;
    session.take(brought);
    provider.stop({ code: 1000, reason: "you are signing in" });
    provider.resume();
  });
  element("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = input.value.trim();
    if (token === "") return;
    input.value = "";
    session.signIn(token);
    provider.resume();
  });
  element("sign-out").addEventListener("click", () => {
    session.signOut();
    element("me-card").hidePopover();
    provider.stop({ code: 4401, reason: "you have signed out" });
  });
}

function why(code: number, reason: string, signedIn: boolean): string {
  if (code === 4401 && !signedIn) return "This server asks who you are.";
  const sentence = `${reason.slice(0, 1).toLocaleUpperCase()}${reason.slice(1)}.`;
  return code === 4403 ? `${sentence} Somebody else may.` : sentence;
}
