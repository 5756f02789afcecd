/** What the page says about the connection and about what is saved: never more than the server said. */

import type { Status } from "../provider.ts";

export type Mood = "saved" | "saving" | "connecting" | "offline" | "read-only" | "stopped";

export interface State {
  readonly mood: Mood;
  /** The few words that are always in sight. */
  readonly words: string;
  /** The sentence behind them. */
  readonly detail: string;
  /** Whether typing still leads anywhere. */
  readonly mayWrite: boolean;
}

export function stateOf(status: Status): State {
  const { link, unsaved } = status;
  const kept = unsaved > 0 ? `${count(unsaved)} kept in this tab` : "";
  if (link.type === "stopped") {
    return {
      mood: "stopped",
      words: kept ? `Stopped — ${kept}` : "Stopped",
      detail: sentence(link.reason),
      mayWrite: false,
    };
  }
  if (link.type === "waiting" || (link.type === "connecting" && unsaved > 0)) {
    return {
      mood: "offline",
      words: kept ? `Offline — ${kept}` : "Offline",
      detail: "The server cannot be reached. Go on writing: everything is sent when it is back.",
      mayWrite: true,
    };
  }
  if (link.type === "connecting" || !status.isSynced) {
    return { mood: "connecting", words: "Connecting…", detail: "Joining the room.", mayWrite: true };
  }
  if (status.isReadOnly) {
    return {
      mood: "read-only",
      words: kept ? `Read-only — ${kept}` : "Read-only: nothing can be saved now",
      detail: "The server takes no changes in this room at the moment.",
      mayWrite: false,
    };
  }
  if (unsaved > 0) {
    return {
      mood: "saving",
      words: "Saving…",
      detail: "The server has not yet said that it is on disk.",
      mayWrite: true,
    };
  }
  return {
    mood: "saved",
    words: "Saved",
    detail: "Everything here is on the server’s disk.",
    mayWrite: true,
  };
}

/** What a screen reader is told; the flicker between saving and saved is not worth a word. */
export function announcement({ mood, words, detail }: State): string {
  switch (mood) {
    case "saved":
    case "saving":
      return "Connected.";
    case "connecting":
      return "";
    default:
      return `${words}. ${detail}`;
  }
}

function count(changes: number): string {
  return changes === 1 ? "1 change" : `${changes} changes`;
}

function sentence(words: string): string {
  return `${words.slice(0, 1).toLocaleUpperCase()}${words.slice(1)}.`;
}
