/** The card with code to copy, and the addresses below it. */

import { element, setText, span } from "./elements.ts";
import { madeOut, pieces, SNIPPETS, type SnippetName } from "./snippets.ts";

const LANGUAGES = ["browser", "python"] as const satisfies readonly SnippetName[];
const COPIED_MILLISECONDS = 1600;

export function showCode(room: string, socketAddress: string): void {
  let shown: SnippetName = LANGUAGES[0];
  const code = () => madeOut(SNIPPETS[shown], socketAddress, room);

  const show = (language: SnippetName) => {
    shown = language;
    for (const other of LANGUAGES) {
      const tab = element(`tab-${other}`);
      tab.setAttribute("aria-selected", String(other === language));
      tab.tabIndex = other === language ? 0 : -1;
    }
    const panel = element("code");
    panel.setAttribute("aria-labelledby", `tab-${language}`);
    panel.replaceChildren(...pieces(code()).map((piece) => span(piece.kind, piece.text)));
  };

  for (const [index, language] of LANGUAGES.entries()) {
    const tab = element(`tab-${language}`);
    tab.addEventListener("click", () => show(language));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
      const step = event.key === "ArrowRight" ? 1 : LANGUAGES.length - 1;
      const next = LANGUAGES[(index + step) % LANGUAGES.length] ?? language;
      show(next);
      element(`tab-${next}`).focus();
    });
  }
  element("copy").addEventListener("click", () => void copy(code()));
  show(shown);

  const server = new URL(socketAddress);
  const page = `${server.protocol === "wss:" ? "https" : "http"}://${server.host}`;
  setText("address-websocket", socketAddress);
  setText("address-hocuspocus", `${server.protocol}//${server.host}/hocuspocus`);
  setText("address-ysweet", `${page}/doc/${encodeURIComponent(room)}/auth`);
}

async function copy(code: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(code);
    setText("copy", "Copied");
  } catch {
    // Without the right to the clipboard, the code is selected for the person's own copy.
    getSelection()?.selectAllChildren(element("code"));
    setText("copy", "Selected");
  }
  setTimeout(() => setText("copy", "Copy"), COPIED_MILLISECONDS);
}
