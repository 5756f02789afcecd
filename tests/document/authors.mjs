// Record sessions of Yjs users who each write in letters of their own: node authors.mjs <yjs package folder> <first seed> <streams> <file>
//
// One JSON line per session: who its users are, the updates with the number of their user, and what a server shows after
// each of them. Who wrote a character can be seen from it; elements and values carry the number of their user as `by`.

import { closeSync, openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chances } from '../convergence/chances.mjs'

const [packages, firstSeed, streams, file] = process.argv.slice(2)
const Y = createRequire(`${packages}/`)('yjs')

const LETTERS = ['abc 日😀', 'def\u00e4🎉本', 'ghi-🚀語', 'jklß🐍字'].map((each) => [...each])
const KEYS = ['one', 'two', 'a/b', '~四']
const TAGS = ['paragraph', 'heading', 'blockquote', 'hardBreak', 'image']

const word = (by, chance, length = 1 + chance.upTo(7)) =>
  Array.from({ length }, () => chance.oneOf(LETTERS[by])).join('')

function value(by, chance) {
  return chance.oneOf([{ by, said: word(by, chance) }, { by, list: [1.5, true, null, { deep: word(by, chance) }] }, { by }])
}

/** A text with a word in it, or none. */
function freshText(by, chance, type = new Y.Text()) {
  if (chance.happens(0.7)) type.insert(0, word(by, chance))
  return type
}

function fresh(by, chance) {
  const doing = chance.upTo(3)
  if (doing === 0) return freshText(by, chance)
  if (doing === 1) return Y.Array.from([value(by, chance)])
  const map = new Y.Map()
  map.set('is', { by })
  return map
}

/** A block as an editor makes it. */
function block(by, chance, depth = 0) {
  const element = new Y.XmlElement(chance.oneOf(TAGS))
  element.setAttribute('by', `${by}`)
  const children = []
  if (element.nodeName === 'blockquote' && depth < 3) {
    for (let count = chance.upTo(3); count > 0; count -= 1) children.push(block(by, chance, depth + 1))
  } else if (element.nodeName !== 'hardBreak' && element.nodeName !== 'image') {
    if (chance.happens(0.8)) children.push(freshText(by, chance, new Y.XmlText()))
    if (chance.happens(0.2)) children.push(block(by, chance, 9), freshText(by, chance, new Y.XmlText()))
  }
  element.insert(0, children)
  return element
}

const isInside = (string, at) => /^[\udc00-\udfff]/.test(string.slice(at, at + 1))

function editText(text, by, chance) {
  const string = text.toDelta().map(({ insert }) => (typeof insert === 'string' ? insert : '\ufffc')).join('')
  let start = chance.upTo(string.length + 1)
  if (isInside(string, start)) start -= 1
  const doing = chance.upTo(10)
  if (doing < 6 || start === string.length) return text.insert(start, word(by, chance))
  let length = Math.min(1 + chance.upTo(6), string.length - start)
  if (isInside(string, start + length)) length += 1
  if (doing < 8) return text.delete(start, length)
  if (doing < 9) return text.format(start, length, { bold: chance.happens(0.5) || null })
  return text.insertEmbed(start, { by })
}

function editArray(array, by, chance) {
  const nested = array.toArray().filter((each) => each instanceof Y.AbstractType)
  const doing = chance.upTo(10)
  if (nested.length > 0 && doing < 4) return editAny(chance.oneOf(nested), by, chance)
  if (doing < 7 || array.length === 0) {
    const values = Array.from({ length: 1 + chance.upTo(3) }, () => value(by, chance))
    if (chance.happens(0.4)) values.push(fresh(by, chance))
    return array.insert(chance.upTo(array.length + 1), values)
  }
  const at = chance.upTo(array.length)
  array.delete(at, Math.min(1 + chance.upTo(3), array.length - at))
}

function editMap(map, by, chance) {
  const key = chance.oneOf(KEYS)
  const held = map.get(key)
  const doing = chance.upTo(10)
  if (held instanceof Y.AbstractType && doing < 5) return editAny(held, by, chance)
  if (doing < 6) return map.set(key, value(by, chance))
  if (doing < 8) return map.set(key, fresh(by, chance))
  map.delete(key)
}

function editXml(parent, by, chance) {
  const children = parent.toArray()
  const doing = chance.upTo(14)
  if (children.length > 0 && doing < 7) return editAny(chance.oneOf(children), by, chance)
  if (doing < 9 || children.length === 0) {
    return parent.insert(chance.upTo(children.length + 1), [block(by, chance)])
  }
  if (doing < 10 && parent instanceof Y.XmlElement) {
    return parent.setAttribute('level', word(by, chance))
  }
  const at = chance.upTo(children.length)
  if (doing < 12 && children[at] instanceof Y.XmlElement) {
    // a paragraph that is moved is deleted and written once more
    parent.delete(at, 1)
    return parent.insert(chance.upTo(children.length), [block(by, chance)])
  }
  parent.delete(at, 1)
}

function editAny(type, by, chance) {
  if (type instanceof Y.Text) editText(type, by, chance)
  else if (type instanceof Y.XmlFragment) editXml(type, by, chance)
  else if (type instanceof Y.Array) editArray(type, by, chance)
  else editMap(type, by, chance)
}

const roots = (doc) => [doc.getText('text'), doc.getArray('array'), doc.getMap('map'), doc.getXmlFragment('xml')]

/** As a changeset tells values. */
function plain(value) {
  if (value instanceof Y.Text) {
    return value.toDelta().map(({ insert }) => (typeof insert === 'string' ? insert : '\ufffc')).join('')
  }
  if (value instanceof Y.XmlFragment) {
    const children = value.toArray().map(plain)
    if (!(value instanceof Y.XmlElement)) return children
    return { tag: value.nodeName, attributes: value.getAttributes(), children }
  }
  if (value instanceof Y.Array) return value.toArray().map(plain)
  if (value instanceof Y.Map) return Object.fromEntries([...value.entries()].map(([key, held]) => [key, plain(held)]))
  return value
}

function shown(doc) {
  const [text, array, map, xml] = roots(doc).map(plain)
  return { text, array, map, xml }
}

function recorded(seed) {
  const chance = chances(seed)
  const server = new Y.Doc()
  const rows = []
  const users = LETTERS.map((_, by) => ({ by, doc: new Y.Doc(), inbox: [] }))
  for (const user of users) {
    user.doc.clientID = 1 + chance.upTo(2 ** 31)
    user.doc.on('update', (update, origin) => {
      if (origin === 'remote') return
      for (const other of users) if (other !== user) other.inbox.push(update)
      Y.applyUpdate(server, update, 'remote')
      rows.push({ by: user.by, update: Buffer.from(update).toString('base64'), shown: shown(server) })
    })
  }
  const hear = (user) => {
    for (const update of user.inbox.splice(0)) Y.applyUpdate(user.doc, update, 'remote')
  }
  for (let step = 60; step > 0; step -= 1) {
    const user = chance.oneOf(users)
    if (chance.happens(0.6)) hear(user)
    user.doc.transact(() => {
      for (let edits = 1 + chance.upTo(2); edits > 0; edits -= 1) editAny(chance.oneOf(roots(user.doc)), user.by, chance)
    })
  }
  return { seed, clients: users.map(({ doc }) => doc.clientID), rows }
}

const out = openSync(file, 'w')
for (let index = 0; index < Number(streams); index += 1) {
  writeSync(out, `${JSON.stringify(recorded(Number(firstSeed) + index))}\n`)
}
closeSync(out)
