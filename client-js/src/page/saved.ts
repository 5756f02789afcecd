/** Shows the state: in the bar, at the document's foot, and to a screen reader. */

import type { Provider } from "../provider.ts";
import type { Editor } from "./editor.ts";
import { element, setText } from "./elements.ts";
import type { Session } from "./session.ts";
import { announcement, type Mood, stateOf } from "./state.ts";

/** A state that is gone sooner is not read out. */
const ANNOUNCE_MILLISECONDS = 700;

export function showSaved(provider: Provider, session: Session, editor: Editor): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let before: Mood | undefined;

  const show = () => {
    const status = provider.getSnapshot();
    const state = stateOf(status, session.mayWrite);
    element("state").dataset.mood = state.mood;
    setText("state-words", state.words);
    setText("state-detail", state.detail);
    setText("saved-after", lasted(status.savedAfterMilliseconds));
    editor.setMayWrite(state.mayWrite);
    // It will not change by itself, so the reason is shown without being asked for.
    if (state.mood === "stopped" && before !== "stopped") element("state-card").showPopover();
    before = state.mood;
    clearTimeout(timer);
    const words = announcement(state);
    if (words !== "") timer = setTimeout(() => setText("announcer", words), ANNOUNCE_MILLISECONDS);
  };
  show();
  provider.subscribe(show);

  addEventListener("beforeunload", (event) => {
    if (provider.getSnapshot().unsaved > 0) event.preventDefault();
  });
}

function lasted(milliseconds: number | null): string {
  return milliseconds === null ? "" : `last change on disk after ${Math.max(1, Math.round(milliseconds))} ms`;
}
