/** The frames that PROTOCOL.md promises, read by these tests and by those of the server. */

import { readFileSync } from "node:fs";

export interface Vector {
  readonly meaning: string;
  readonly frame: string;
  readonly from: "client" | "server" | "both";
  readonly message: Readonly<Record<string, string | number>>;
}

interface Vectors {
  readonly messages: readonly Vector[];
  readonly malformed: readonly { readonly meaning: string; readonly frame: string }[];
}

const file = new URL("../../tests/vectors/collab-v1.json", import.meta.url);

export const vectors = JSON.parse(readFileSync(file, "utf8")) as Vectors;

export function bytes(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}

export function hex(of: Uint8Array): string {
  return Buffer.from(of).toString("hex");
}
