// Record random editing sessions of Yjs users: node streams.mjs <yjs package folder> <first seed> <streams> <file> [cut]
//
// One JSON line per stream: its updates in the order they were made, and the document Yjs ends in after all of them.
// Every second stream also has updates that Yjs merged, differences between two users, and whole states of users who
// still waited for something when they were asked. With `cut`, edits also go between the halves of surrogate pairs.

import { closeSync, openSync, writeSync } from 'node:fs'
import { chances } from './chances.mjs'
import { showing } from './showing.mjs'

const [packages, firstSeed, streams, file, cut] = process.argv.slice(2)
const { Y, roots, shown, waits } = showing(packages)

const WORDS = ['a', 'e', 'the ', 'collab', '\n', '😀', '👩‍👩‍👧', '日本語', 'é', 'ß', 'ﷺ', 'x'.repeat(40)]
const KEYS = ['one', 'two', 'drei', '四']
const VALUES = [0, 1, -7, 2 ** 31, 1.5, true, false, null, '', 'text', '語😀', [1, [2, { three: 3 }]], { k: { l: [null] } }]
const FORMATS = [{ bold: true }, { bold: null }, { em: { size: 2 } }, { em: null }, { color: 'red' }]

/** The units of a text, an embed as one. */
const units = (text) => text.toDelta().map(({ insert }) => (typeof insert === 'string' ? insert : '\ufffc')).join('')
const isInside = (string, at) => !cut && /^[\udc00-\udfff]/.test(string.slice(at, at + 1))

function editText(text, chance) {
  const string = units(text)
  let start = chance.upTo(text.length + 1)
  if (isInside(string, start)) start -= 1
  const doing = chance.upTo(10)
  if (doing < 5 || start === text.length) {
    if (chance.happens(0.3)) text.insert(start, chance.oneOf(WORDS), chance.oneOf(FORMATS))
    else text.insert(start, chance.oneOf(WORDS))
  } else if (doing < 6) {
    text.insertEmbed(start, { image: chance.oneOf(WORDS), size: chance.upTo(9) })
  } else {
    let length = 1 + chance.upTo(Math.min(6, text.length - start))
    if (isInside(string, start + length)) length += 1
    // a format that changes nothing can make Yjs cut a pair without telling anybody: its own readers then differ
    if (doing < 8 || cut) text.delete(start, length)
    else text.format(start, length, chance.oneOf(FORMATS))
  }
}

function freshType(chance) {
  const type = chance.oneOf([Y.Array, Y.Map, Y.Text])
  return new type()
}

function editArray(array, chance) {
  const nested = array.toArray().filter((value) => value instanceof Y.AbstractType)
  const doing = chance.upTo(10)
  if (nested.length > 0 && doing < 4) {
    editAny(chance.oneOf(nested), chance)
  } else if (doing < 7 || array.length === 0) {
    const values = Array.from({ length: 1 + chance.upTo(3) }, () => chance.oneOf(VALUES))
    if (chance.happens(0.3)) values.push(freshType(chance))
    array.insert(chance.upTo(array.length + 1), values)
  } else {
    const at = chance.upTo(array.length)
    array.delete(at, 1 + chance.upTo(Math.min(3, array.length - at)))
  }
}

function editMap(map, chance) {
  const key = chance.oneOf(KEYS)
  const value = map.get(key)
  const doing = chance.upTo(10)
  if (value instanceof Y.AbstractType && doing < 5) editAny(value, chance)
  else if (doing < 6) map.set(key, chance.oneOf(VALUES))
  else if (doing < 8) map.set(key, freshType(chance))
  else map.delete(key)
}

function editXml(parent, chance) {
  const children = parent.toArray()
  const doing = chance.upTo(12)
  if (children.length > 0 && doing < 5) {
    editAny(chance.oneOf(children), chance)
  } else if (doing < 9 || children.length === 0) {
    const child = chance.happens(0.5) ? new Y.XmlText() : new Y.XmlElement(chance.oneOf(['p', 'div', 'h1']))
    parent.insert(chance.upTo(children.length + 1), [child])
  } else if (doing < 10 && parent instanceof Y.XmlElement) {
    parent.setAttribute(chance.oneOf(KEYS), chance.oneOf(WORDS))
  } else {
    parent.delete(chance.upTo(children.length), 1)
  }
}

function editAny(type, chance) {
  if (type instanceof Y.XmlText || type instanceof Y.Text) editText(type, chance)
  else if (type instanceof Y.XmlFragment) editXml(type, chance)
  else if (type instanceof Y.Array) editArray(type, chance)
  else editMap(type, chance)
}

/** A member of the session: a document, what was sent to it, and whether it is online. */
function meet(count, chance, log) {
  const users = Array.from({ length: count }, () => ({ doc: new Y.Doc(), inbox: [], online: true }))
  for (const user of users) {
    user.doc.clientID = chance.upTo(2 ** 32)
    user.doc.on('update', (update, origin) => {
      if (origin === 'remote') return
      log.push(update)
      for (const other of users) if (other !== user) other.inbox.push(update)
    })
  }
  return users
}

function session(chance, isMixed) {
  const log = []
  const users = meet(3 + chance.upTo(3), chance, log)
  for (let step = 40 + chance.upTo(60); step > 0; step -= 1) {
    const user = chance.oneOf(users)
    const doing = chance.upTo(100)
    if (doing < 60) {
      user.doc.transact(() => {
        for (let edits = 1 + chance.upTo(3); edits > 0; edits -= 1) editAny(chance.oneOf(roots(user.doc)), chance)
      })
    } else if (doing < 85) {
      if (!user.online) continue
      for (let count = chance.upTo(user.inbox.length + 1); count > 0; count -= 1) {
        const at = chance.happens(0.2) ? chance.upTo(user.inbox.length) : 0
        Y.applyUpdate(user.doc, user.inbox.splice(at, 1)[0], 'remote')
      }
    } else if (doing < 92) {
      user.online = !user.online
    } else {
      const other = chance.oneOf(users)
      const update = Y.encodeStateAsUpdate(user.doc, Y.encodeStateVector(other.doc))
      Y.applyUpdate(other.doc, update, 'remote')
      if (isMixed) log.push(update)
    }
    if (isMixed && waits(user.doc) && chance.happens(0.3)) log.push(Y.encodeStateAsUpdate(user.doc))
  }
  return log
}

/** Some of the updates merged in groups that need not be neighbours, each where its last member stood. */
function regrouped(log, chance) {
  const updates = [...log]
  for (let groups = chance.upTo(8); groups > 0 && updates.length > 6; groups -= 1) {
    const places = new Set(Array.from({ length: 2 + chance.upTo(5) }, () => chance.upTo(updates.length)))
    const group = [...places].sort((a, b) => a - b)
    const merged = Y.mergeUpdates(group.map((at) => updates[at]))
    updates[group[group.length - 1]] = merged
    for (const at of group.slice(0, -1).reverse()) updates.splice(at, 1)
  }
  return updates
}

function recorded(seed) {
  const chance = chances(seed)
  const isMixed = seed % 2 === 1
  const log = session(chance, isMixed)
  const updates = isMixed ? regrouped(log, chance) : log
  const end = new Y.Doc()
  // Yjs takes useless formats away after remote edits; such an edit of the last reader belongs to the stream too.
  end.on('update', (update, origin) => origin === 'remote' || updates.push(update))
  for (const update of updates) Y.applyUpdate(end, update, 'remote')
  if (waits(end)) throw new Error(`stream ${seed} does not hold all it refers to`)
  return { seed, updates: updates.map((update) => Buffer.from(update).toString('base64')), ...shown(end) }
}

const out = openSync(file, 'w')
for (let index = 0; index < Number(streams); index += 1) {
  writeSync(out, `${JSON.stringify(recorded(Number(firstSeed) + index))}\n`)
}
closeSync(out)
