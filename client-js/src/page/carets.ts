/** Everybody's caret and selection in the editor, and mine in everybody's; the `cursor` field of y-codemirror. */

import { Annotation, type EditorState, type Extension, type Range } from "@codemirror/state";
import {
  Decoration,
  type DecorationSet,
  EditorView,
  ViewPlugin,
  type ViewUpdate,
  WidgetType,
} from "@codemirror/view";
import type { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import { inkOn } from "./colours.ts";
import { type Person, person } from "./people.ts";

const moved = Annotation.define<true>();

/** Styles are set through the object model, never as an attribute: the page's policy allows no inline style. */
class Caret extends WidgetType {
  constructor(
    readonly person: Person,
    /** Where it stands, so that its name shows again after each move. */
    readonly place: string,
    readonly isOnFirstLine: boolean,
  ) {
    super();
  }

  override eq(other: Caret): boolean {
    return (
      other.place === this.place &&
      other.isOnFirstLine === this.isOnFirstLine &&
      other.person.name === this.person.name &&
      other.person.colour === this.person.colour &&
      other.person.agent?.tail === this.person.agent?.tail &&
      other.isAtWork === this.isAtWork
    );
  }

  get isAtWork(): boolean {
    const doing = this.person.agent?.doing;
    return doing === "writing" || doing === "thinking";
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement("span");
    caret.className = this.isOnFirstLine ? "cm-caret cm-caret-below" : "cm-caret";
    if (this.isAtWork) caret.classList.add("cm-caret-busy");
    caret.setAttribute("aria-hidden", "true");
    caret.style.setProperty("--who", this.person.colour);
    caret.style.setProperty("--ink", inkOn(this.person.colour));
    const label = document.createElement("span");
    label.className = "cm-caret-name";
    label.textContent = this.person.name;
    // Word joiners on both sides keep the caret from being where a line may break.
    caret.append("\u2060", label, "\u2060");
    const tail = this.person.agent?.tail ?? "";
    if (tail === "") return caret;
    // What is on its way follows the caret; it is not in the document yet.
    const words = document.createElement("span");
    words.className = "cm-tail";
    words.textContent = tail;
    const both = document.createElement("span");
    both.setAttribute("aria-hidden", "true");
    both.style.setProperty("--who", this.person.colour);
    both.append(caret, words);
    return both;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

class Carets {
  decorations: DecorationSet = Decoration.none;
  readonly #stop: () => void;

  constructor(
    view: EditorView,
    readonly text: Y.Text,
    readonly awareness: Awareness,
  ) {
    const changed = ({ added, updated, removed }: Record<string, number[] | undefined>) => {
      const clients = [...(added ?? []), ...(updated ?? []), ...(removed ?? [])];
      if (clients.some((client) => client !== awareness.clientID)) {
        view.dispatch({ annotations: moved.of(true) });
      }
    };
    awareness.on("change", changed);
    this.#stop = () => awareness.off("change", changed);
  }

  update(update: ViewUpdate): void {
    if (update.docChanged || update.selectionSet || update.focusChanged) this.#announce(update.view);
    if (update.docChanged || update.transactions.some((transaction) => transaction.annotation(moved))) {
      this.#draw(update.state);
    }
  }

  destroy(): void {
    this.#stop();
  }

  #announce(view: EditorView): void {
    // Without the focus the caret stays where it was left; before the first focus there is none.
    if (!view.hasFocus || this.awareness.getLocalState() === null) return;
    const { anchor, head } = view.state.selection.main;
    const cursor = {
      anchor: Y.createRelativePositionFromTypeIndex(this.text, anchor),
      head: Y.createRelativePositionFromTypeIndex(this.text, head),
    };
    const before: unknown = this.awareness.getLocalState()?.cursor;
    if (JSON.stringify(before) !== JSON.stringify(cursor))
      this.awareness.setLocalStateField("cursor", cursor);
  }

  #draw(state: EditorState): void {
    const ranges: Range<Decoration>[] = [];
    for (const [client, announced] of this.awareness.getStates()) {
      if (client === this.awareness.clientID) continue;
      const anchor = this.#index(announced.cursor?.anchor, state);
      const head = this.#index(announced.cursor?.head, state);
      if (anchor === null || head === null) continue;
      const who = person(client, announced, false);
      if (anchor !== head) {
        const selection = { class: "cm-others-selection", attributes: { style: `--who: ${who.colour}` } };
        ranges.push(Decoration.mark(selection).range(Math.min(anchor, head), Math.max(anchor, head)));
      }
      const place = JSON.stringify(announced.cursor.head);
      const caret = new Caret(who, place, state.doc.lineAt(head).number === 1);
      // My own caret stands outside the other's selection.
      ranges.push(Decoration.widget({ widget: caret, side: head > anchor ? -1 : 1 }).range(head));
    }
    this.decorations = Decoration.set(ranges, true);
  }

  /** Null for what is no position in this text: other programs may announce anything. */
  #index(announced: unknown, state: EditorState): number | null {
    if (typeof announced !== "object" || announced === null || this.text.doc === null) return null;
    try {
      const position = Y.createRelativePositionFromJSON(announced);
      const found = Y.createAbsolutePositionFromRelativePosition(position, this.text.doc);
      return found?.type === this.text && found.index <= state.doc.length ? found.index : null;
    } catch {
      return null;
    }
  }
}

export function carets(text: Y.Text, awareness: Awareness): Extension {
  return [
    ViewPlugin.define((view) => new Carets(view, text, awareness), {
      decorations: (plugin) => plugin.decorations,
    }),
    EditorView.baseTheme({
      ".cm-caret": {
        position: "relative",
        borderLeft: "2px solid light-dark(var(--who), color-mix(in oklab, var(--who) 62%, white))",
        marginLeft: "-1px",
        marginRight: "-1px",
      },
      ".cm-caret-name": {
        position: "absolute",
        bottom: "calc(100% - 0.1em)",
        left: "-2px",
        zIndex: "5",
        padding: "0.15em 0.5em 0.2em",
        borderRadius: "0.4em 0.4em 0.4em 0",
        background: "var(--who)",
        color: "var(--ink)",
        font: "600 12px/1.25 var(--sans)",
        letterSpacing: "0",
        whiteSpace: "nowrap",
        pointerEvents: "none",
        userSelect: "none",
        animation: "caret-name 4s ease-in forwards",
      },
      ".cm-caret-below .cm-caret-name": {
        bottom: "auto",
        top: "calc(100% - 0.1em)",
        borderRadius: "0 0.4em 0.4em 0.4em",
      },
      ".cm-caret:hover .cm-caret-name, .cm-caret-busy .cm-caret-name": { animation: "none" },
      ".cm-tail": {
        color: "light-dark(var(--who), color-mix(in oklab, var(--who) 62%, white))",
        fontStyle: "italic",
        whiteSpace: "pre-wrap",
      },
      "@keyframes caret-name": { "0%, 85%": { opacity: "1" }, "100%": { opacity: "0" } },
      ".cm-others-selection": {
        background:
          "light-dark(color-mix(in oklab, var(--who) 24%, transparent), color-mix(in oklab, var(--who) 55%, transparent))",
      },
    }),
  ];
}
