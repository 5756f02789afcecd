/** Code of a test, made into a page with an address of its own. */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** With everything it imports, as one script. */
export async function bundled(contents: string): Promise<string> {
  const resolveDir = fileURLToPath(new URL("../../", import.meta.url));
  const { outputFiles } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    format: "esm",
    write: false,
  });
  return outputFiles[0]?.text ?? "";
}

/** A page with nothing but the script, at a port of its own. */
export async function serve(script: string): Promise<string> {
  const pages = createServer((request, response) => {
    const isScript = request.url === "/script.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(
      isScript
        ? script
        : `<!doctype html><link rel="icon" href="data:,"><script type="module" src="script.js"></script>`,
    );
  });
  await new Promise<void>((listening) => pages.listen(0, "127.0.0.1", listening));
  pages.unref();
  return `http://127.0.0.1:${(pages.address() as AddressInfo).port}/`;
}
