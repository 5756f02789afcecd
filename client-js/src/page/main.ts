/** The playground: one document, its room, and everything on the page that shows them. */

import { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import { Provider } from "../provider.ts";
import { showAgents } from "./agents.ts";
import { showAuthors } from "./authors.ts";
import { showCode } from "./code.ts";
import { showCompany, showUser } from "./company.ts";
import { showDone } from "./done.ts";
import { createEditor } from "./editor.ts";
import { element } from "./elements.ts";
import { roomFrom, socketAddress } from "./names.ts";
import { showPlace } from "./place.ts";
import { Requests } from "./requests.ts";
import { showSaved } from "./saved.ts";
import { Session, takeFragment } from "./session.ts";
import { showSigning } from "./signing.ts";
import { showWords } from "./words.ts";

const brought = takeFragment();
const page = new URL(location.href);
const room = roomFrom(page);
const sockets = socketAddress(page);

const doc = new Y.Doc();
const text = doc.getText("text");
const awareness = new Awareness(doc);

showCompany(awareness);
const editor = createEditor(element("editor"), text, awareness);
const session = new Session(room, brought);
const provider = new Provider({
  url: `${sockets}/${encodeURIComponent(room)}`,
  doc,
  awareness,
  ticket: session.ticket,
});

const requests = new Requests(room, session);

showPlace(room, page, editor.focus);
showSaved(provider, session, editor);
showSigning(provider, session);
showUser(provider);
showWords(text);
showAgents(awareness, provider, requests);
showDone(provider, awareness, requests);
showAuthors(text, awareness, editor, requests);
showCode(room, sockets);
editor.focus();
