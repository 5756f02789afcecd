// What Yjs shows after some updates: node readers.mjs <yjs package folder> <file>
//
// The file holds one JSON list of updates per line; so many lines of what Yjs makes of them come out.

import { readFileSync } from 'node:fs'
import { showing } from './showing.mjs'

const [packages, file] = process.argv.slice(2)
const { Y, shown, waits } = showing(packages)

for (const line of readFileSync(file, 'utf8').trimEnd().split('\n')) {
  const doc = new Y.Doc()
  for (const update of JSON.parse(line)) Y.applyUpdate(doc, Buffer.from(update, 'base64'))
  process.stdout.write(`${JSON.stringify({ ...shown(doc), waits: waits(doc) })}\n`)
}
