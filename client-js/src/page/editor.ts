/** The editor: CodeMirror over a Y.Text, in a shadow root, where its styles need no exception from the page's policy. */

import { defaultKeymap } from "@codemirror/commands";
import {
  deleteMarkupBackward,
  insertNewlineContinueMarkup,
  markdownLanguage,
} from "@codemirror/lang-markdown";
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { ChangeSet, Compartment, EditorState, Prec } from "@codemirror/state";
import { drawSelection, EditorView, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";
import type { Awareness } from "y-protocols/awareness";
import type * as Y from "yjs";
import { carets } from "./carets.ts";
import { type Coloured, colour, colouring } from "./colouring.ts";

/** The text at one moment, to be coloured when it is known by whom it is, though it may have changed since. */
export interface Captured {
  readonly text: string;
  readonly colour: (runs: readonly Coloured[]) => void;
}

export interface Editor {
  focus(): void;
  setMayWrite(mayWrite: boolean): void;
  /** One is followed at a time: the last. */
  capture(): Captured;
  /** Without colours again. */
  plain(): void;
}

const theme = EditorView.theme({
  "&": { color: "var(--text)", fontSize: "1.0625rem", height: "100%" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--sans)", lineHeight: "1.65", overflow: "auto" },
  ".cm-content": {
    boxSizing: "border-box",
    maxWidth: "46rem",
    margin: "0 auto",
    padding: "clamp(1.5rem, 5vw, 3.5rem) clamp(1.25rem, 5vw, 3rem) 30vh",
    caretColor: "var(--me)",
  },
  ".cm-line": { padding: "0" },
  ".cm-cursor": { borderLeft: "2px solid var(--me)", marginLeft: "-1px" },
  "& .cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    background: "color-mix(in oklab, var(--me) 22%, transparent)",
  },
  ".cm-placeholder": { color: "var(--quiet)", fontStyle: "normal" },
});

const highlight = HighlightStyle.define([
  { tag: tags.heading1, fontSize: "1.9em", fontWeight: "680", letterSpacing: "-0.022em", lineHeight: "1.25" },
  { tag: tags.heading2, fontSize: "1.4em", fontWeight: "660", letterSpacing: "-0.015em", lineHeight: "1.35" },
  { tag: tags.heading3, fontSize: "1.15em", fontWeight: "650" },
  { tag: tags.heading, fontWeight: "650" },
  { tag: tags.strong, fontWeight: "680" },
  { tag: tags.emphasis, fontStyle: "italic" },
  { tag: tags.strikethrough, textDecoration: "line-through" },
  { tag: tags.link, textDecoration: "underline", textUnderlineOffset: "0.2em" },
  { tag: tags.url, color: "var(--quiet)" },
  { tag: tags.monospace, fontFamily: "var(--mono)", fontSize: "0.9em", wordSpacing: "0" },
  { tag: tags.quote, color: "var(--quiet)" },
  {
    tag: [tags.processingInstruction, tags.contentSeparator, tags.labelName],
    color: "var(--faint)",
    fontWeight: "400",
  },
]);

/** Stands for what another program put into the text that is no text, a picture say: one place, as Yjs counts it. */
const OBJECT = "\ufffc";

function words(insert: unknown): string {
  return typeof insert === "string" ? insert : OBJECT;
}

export function createEditor(host: HTMLElement, text: Y.Text, awareness: Awareness): Editor {
  const writable = new Compartment();
  const access = (mayWrite: boolean) => [
    EditorState.readOnly.of(!mayWrite),
    EditorView.editable.of(mayWrite),
  ];
  // Before the binding looks at the same event, which keeps its delta.
  text.observe(({ delta }) => {
    for (const part of delta) if (part.insert !== undefined) part.insert = words(part.insert);
  });
  // What has happened to the text since it was captured.
  let changed = ChangeSet.empty(text.length);
  const view = new EditorView({
    parent: host.attachShadow({ mode: "open", delegatesFocus: true }),
    state: EditorState.create({
      doc: (text.toDelta() as { insert: unknown }[]).map(({ insert }) => words(insert)).join(""),
      extensions: [
        // Positions must count as Yjs does: a carriage return from another program is a character, not a line's end.
        EditorState.lineSeparator.of("\n"),
        EditorView.clipboardInputFilter.of((pasted) => pasted.replace(/\r\n?/gu, "\n")),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({
          "aria-label": "Document, shared with everybody in this room",
          // The focus stays when the document cannot be written to for a while.
          tabindex: "0",
          spellcheck: "true",
          autocapitalize: "sentences",
        }),
        drawSelection({ cursorBlinkRate: 1060 }),
        placeholder("Write something.\nThen open a second window: it is already there."),
        markdownLanguage,
        syntaxHighlighting(highlight),
        Prec.high(
          keymap.of([
            { key: "Enter", run: insertNewlineContinueMarkup },
            { key: "Backspace", run: deleteMarkupBackward },
          ]),
        ),
        // No binding for Tab: it leaves the editor, as people on a keyboard need it to.
        keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
        yCollab(text, null),
        carets(text, awareness),
        colouring,
        EditorView.updateListener.of(({ changes }) => {
          changed = changed.compose(changes);
        }),
        writable.of(access(true)),
        theme,
      ],
    }),
  });
  return {
    focus: () => view.focus(),
    setMayWrite: (mayWrite) => {
      if (mayWrite === !view.state.readOnly) return;
      view.dispatch({ effects: writable.reconfigure(access(mayWrite)) });
    },
    capture: () => {
      const { doc } = view.state;
      changed = ChangeSet.empty(doc.length);
      return {
        text: doc.toString(),
        colour: (runs) => view.dispatch({ effects: colour.of({ runs, changed }) }),
      };
    },
    plain: () =>
      view.dispatch({ effects: colour.of({ runs: [], changed: ChangeSet.empty(view.state.doc.length) }) }),
  };
}
