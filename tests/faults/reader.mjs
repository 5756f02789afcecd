// Fresh stock clients that say what they see: node reader.mjs <folder with node_modules>
//
// One JSON object {url, room} a line in, one a line out. The client is y-websocket's own, with a document of its own.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const load = createRequire(`${process.argv[2]}/`)
const Y = load('yjs')
const { WebsocketProvider } = load('y-websocket')
const { Awareness } = load('y-protocols/awareness')
const WebSocket = load('ws')

console.warn = () => {}
const base64 = (bytes) => Buffer.from(bytes).toString('base64')
const waits = (doc) => doc.store.pendingStructs !== null || doc.store.pendingDs !== null

async function look({ url, room, seconds, settles }) {
  const doc = new Y.Doc()
  const awareness = new Awareness(doc)
  awareness.setLocalState(null) // it only looks
  const provider = new WebsocketProvider(`${url}/ws`, room, doc, {
    WebSocketPolyfill: WebSocket,
    disableBc: true,
    awareness,
  })
  try {
    await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error('not synced in time')), seconds * 1000)
      provider.on('sync', (isSynced) => isSynced && resolve())
    })
    // Who is here comes right behind the document.
    await new Promise((resolve) => setTimeout(resolve, settles * 1000))
    return {
      text: doc.getText('text').toString(),
      array: doc.getArray('array').toJSON(),
      map: doc.getMap('map').toJSON(),
      vector: base64(Y.encodeStateVector(doc)),
      state: base64(Y.encodeStateAsUpdate(doc)),
      isWaiting: waits(doc),
      present: [...awareness.getStates().keys()],
    }
  } finally {
    provider.destroy()
    awareness.destroy()
    doc.destroy()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = await look(JSON.parse(line))
  } catch (error) {
    answer = { error: String(error) }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
process.exit(0)
