/**
 * Builds the playground into collab/server/pages, which is committed: the server needs no Node.
 *
 * `--check` builds elsewhere and fails when a single byte differs. The manifest holds a hash of all sources, so that
 * a test without Node can tell that the bundle is stale.
 */

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const pages = join(here, "..", "collab", "server", "pages");

/** What the bundle is made of, beside everything in src. */
const INPUTS = ["build.mjs", "package-lock.json"];

function filesIn(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
    .sort();
}

function sha256(content) {
  return createHash("sha256").update(content).digest("hex");
}

/** One line a file, "hash  path", in the order of the paths' characters: tests/test_bundle.py computes the same. */
function sourcesHash() {
  const paths = [...INPUTS, ...filesIn(join(here, "src")).map((path) => `src/${path}`)].sort();
  return sha256(paths.map((path) => `${sha256(readFileSync(join(here, path)))}  ${path}\n`).join(""));
}

/** The licences of everything in the bundle: all of them ask to go where the code goes. */
function licences(inputs) {
  const packages = new Set(
    inputs
      .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
      .filter((name) => name !== undefined),
  );
  return [...packages]
    .sort()
    .map((name) => {
      const folder = join(here, "node_modules", name);
      const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
      const words = file === undefined ? license : readFileSync(join(folder, file), "utf8").trim();
      return `${name} ${version} (${license})\n\n${words}\n`;
    })
    .join(`\n${"-".repeat(80)}\n\n`);
}

async function bundle(target) {
  const { metafile } = await build({
    absWorkingDir: here,
    entryPoints: ["src/page/main.ts", "src/page/main.css", "src/page/icon.svg"],
    outdir: target,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["chrome123", "firefox120", "safari17.5"],
    entryNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    publicPath: "/static",
    loader: { ".txt": "text", ".woff2": "file", ".svg": "copy" },
    legalComments: "none",
    metafile: true,
    logLevel: "warning",
  });

  const html = readFileSync(join(here, "src/page/index.html"), "utf8").replace(
    /\{\{(.+?)\}\}/g,
    (_, wanted) => {
      const name = wanted === "sans.woff2" ? "instrument-sans-latin-wght-normal.woff2" : wanted;
      const stem = basename(name, extname(name));
      const built = filesIn(target).find(
        (file) => file.startsWith(`${stem}-`) && extname(file) === extname(name),
      );
      if (built === undefined) throw new Error(`nothing was built for ${wanted}`);
      return `/static/${built}`;
    },
  );
  writeFileSync(join(target, "index.html"), html);
  const inside = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.entries(inputs));
  const used = inside.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path);
  writeFileSync(join(target, "licences.txt"), licences(used));

  const files = Object.fromEntries(
    filesIn(target).map((path) => [path, sha256(readFileSync(join(target, path)))]),
  );
  writeFileSync(
    join(target, "manifest.json"),
    `${JSON.stringify({ sources: sourcesHash(), files }, null, 2)}\n`,
  );
}

if (process.argv.includes("--check")) {
  const fresh = mkdtempSync(join(tmpdir(), "collab-pages-"));
  try {
    await bundle(fresh);
    const names = [...new Set([...filesIn(fresh), ...filesIn(pages)])].sort();
    const bytes = (folder, name) =>
      filesIn(folder).includes(name) ? readFileSync(join(folder, name), "base64") : null;
    const stale = names.filter((name) => bytes(fresh, name) !== bytes(pages, name));
    if (stale.length > 0) {
      console.error(
        `The committed bundle is not what the sources build (npm run build): ${stale.join(", ")}`,
      );
      process.exitCode = 1;
    }
  } finally {
    rmSync(fresh, { recursive: true });
  }
} else {
  rmSync(pages, { recursive: true, force: true });
  mkdirSync(pages, { recursive: true });
  await bundle(pages);
}
