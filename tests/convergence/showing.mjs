// What two Yjs documents are compared by.

import { createRequire } from 'node:module'
import { isDeepStrictEqual } from 'node:util'

/** Yjs from this package folder, and what a document of it shows. */
export function showing(packages) {
  const Y = createRequire(`${packages}/`)('yjs')

  /** A delta in which neighbours of the same format are one piece: Yjs does not always join them. */
  function plain(delta) {
    const pieces = []
    for (const { insert, attributes = {} } of delta) {
      const [last, formats] = pieces.at(-1) ?? []
      const joins = typeof insert === 'string' && typeof last === 'string' && isDeepStrictEqual(formats, attributes)
      if (joins) pieces.at(-1)[0] += insert
      else pieces.push([insert, attributes])
    }
    return pieces
  }

  function xml(node) {
    if (node instanceof Y.XmlText) return { text: plain(node.toDelta()) }
    const children = node.toArray().map(xml)
    return node instanceof Y.XmlElement ? { tag: node.nodeName, attributes: node.getAttributes(), children } : children
  }

  const roots = (doc) => [doc.getText('text'), doc.getArray('array'), doc.getMap('map'), doc.getXmlFragment('xml')]
  const waits = (doc) => doc.store.pendingStructs !== null || doc.store.pendingDs !== null
  const base64 = (bytes) => Buffer.from(bytes).toString('base64')

  /** Its whole state, its vector, and what a reader sees. */
  function shown(doc) {
    const [text, array, map, fragment] = roots(doc)
    return {
      state: base64(Y.encodeStateAsUpdate(doc)),
      vector: base64(Y.encodeStateVector(doc)),
      content: { text: plain(text.toDelta()), array: array.toJSON(), map: map.toJSON(), xml: xml(fragment) },
    }
  }

  return { Y, roots, shown, waits }
}
