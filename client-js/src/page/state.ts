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

/** `mayWrite` is what the server said of this person, where it was asked. */
export function stateOf(status: Status, mayWrite: boolean | null = null): State {
  const { link, unsaved } = status;
  const kept = unsaved > 0 ? `${count(unsaved)} kept in this tab` : "";
  if (link.type === "stopped") {
    return {
      mood: "stopped",
      words: kept ? `${endOf(link.code)} — ${kept}` : endOf(link.code),
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
      words: kept ? `Read-only — ${kept}` : readOnly(status, mayWrite),
      detail: reasonFor(status, mayWrite),
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

function endOf(code: number): string {
  if (code === 4401) return "Not signed in";
  return code === 4403 ? "Not admitted" : "Stopped";
}

function readOnly({ user }: Status, mayWrite: boolean | null): string {
  return user === null && mayWrite === null ? "Read-only: nothing can be saved now" : "Read-only";
}

function reasonFor({ user }: Status, mayWrite: boolean | null): string {
  if (mayWrite === false) return "You may read this document, not change it.";
  if (user === null && mayWrite === null) return "The server takes no changes in this room at the moment.";
  return "The server takes no changes from you now: you may only read here, or nothing can be saved.";
}

function count(changes: number): string {
  return changes === 1 ? "1 change" : `${changes} changes`;
}

function sentence(words: string): string {
  return `${words.slice(0, 1).toLocaleUpperCase()}${words.slice(1)}.`;
}
