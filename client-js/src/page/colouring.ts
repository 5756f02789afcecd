/** The colours of authors in the editor: runs of the text, which move along as it changes. */

import { type ChangeDesc, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView } from "@codemirror/view";

export interface Coloured {
  readonly start: number;
  readonly end: number;
  /** Six hexadecimal digits. */
  readonly colour: string;
  readonly isAgent: boolean;
  /** Shown to who points at it. */
  readonly title: string;
}

/** These runs and no others, of the text before it changed like this. */
export const colour = StateEffect.define<{
  readonly runs: readonly Coloured[];
  readonly changed: ChangeDesc;
}>();

const field = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update: (before, transaction) => {
    let found = before.map(transaction.changes);
    for (const effect of transaction.effects) {
      if (effect.is(colour)) found = decorate(effect.value.runs).map(effect.value.changed);
    }
    return found;
  },
  provide: (self) => EditorView.decorations.from(self),
});

function decorate(runs: readonly Coloured[]): DecorationSet {
  return Decoration.set(
    runs.map(({ start, end, colour, isAgent, title }) =>
      Decoration.mark({
        class: isAgent ? "cm-by cm-by-agent" : "cm-by",
        attributes: { style: `--who: ${colour}`, title },
      }).range(start, end),
    ),
  );
}

export const colouring = [
  field,
  EditorView.baseTheme({
    ".cm-by": {
      background:
        "light-dark(color-mix(in oklab, var(--who) 13%, transparent), color-mix(in oklab, var(--who) 34%, transparent))",
      borderBottom: "2px solid light-dark(var(--who), color-mix(in oklab, var(--who) 62%, white))",
    },
    // What a program wrote is known without its colour, too.
    ".cm-by-agent": { borderBottomStyle: "dotted" },
  }),
];
