// Random edits of Yjs users, and where relative positions lead in between:
// node positions.mjs <folder of packages> <seed> <edits> <file> [cut]
//
// JSON lines in the order they were made: {"update"}, or after each batch {"texts", "lengths", "made", "found"} and at
// times a {"snapshot"}. Offsets are written in characters; one inside a character as that character's beginning, or as
// its end where a position is held from the left. With `cut`, edits also go between the halves of surrogate pairs.

import { closeSync, openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chances } from '../convergence/chances.mjs'

const [packages, seed, edits, file, cut] = process.argv.slice(2)
const Y = createRequire(`${packages}/`)('yjs')
const BATCH = 100
const POOL = 120
const GROWN = 1200 // units of a text from which on more is deleted than inserted

const WORDS = ['a', 'e', 'the ', 'collab', '\n', '中', '中文输入', '日本語', '한글', '😀', '👩‍👩‍👧', '🏳️‍🌈', '𝒳', 'e\u0301', 'ß', 'ﷺ', 'नमस्ते', 'x'.repeat(40)]
const FORMATS = [{ bold: true }, { bold: null }, { em: { size: 2 } }, { em: null }]
const VALUES = [0, -7, 1.5, true, null, '', '語😀', [1, [2]], { k: { l: [null] } }]
const KEYS = ['one', 'two', '四']

const { upTo, happens, oneOf } = chances(Number(seed))

const isText = (type) => type instanceof Y.Text
const isHigh = (unit) => unit >= 0xd800 && unit < 0xdc00
const isLow = (unit) => unit >= 0xdc00 && unit < 0xe000
/** The units of a text, an embed as one. */
const units = (text) => text.toDelta().map(({ insert }) => (typeof insert === 'string' ? insert : '\ufffc')).join('')
const isInside = (string, at) => at > 0 && at < string.length && isHigh(string.charCodeAt(at - 1)) && isLow(string.charCodeAt(at))
const base64 = (bytes) => Buffer.from(bytes).toString('base64')

/** A place on a boundary between characters, unless those may be cut. */
function placeIn(text, string) {
  const at = upTo(text.length + 1)
  return !cut && isInside(string, at) ? at - 1 : at
}

function editText(text) {
  const string = units(text)
  const at = placeIn(text, string)
  const doing = upTo(100)
  if (doing < (text.length > GROWN ? 35 : 60) || at === text.length) {
    if (happens(0.1)) text.insert(at, oneOf(WORDS), oneOf(FORMATS))
    else text.insert(at, Array.from({ length: 1 + upTo(3) }, () => oneOf(WORDS)).join(''))
  } else if (doing < 64 && text.length <= GROWN) {
    text.insertEmbed(at, { image: oneOf(WORDS) })
  } else {
    let length = Math.min(1 + upTo(happens(0.1) ? 60 : 8), text.length - at)
    if (!cut && isInside(string, at + length)) length += 1
    // A format that changes nothing can make Yjs cut a pair without telling anybody.
    if (doing < 90 || cut) text.delete(at, length)
    else text.format(at, length, oneOf(FORMATS))
  }
}

/** Somewhere to write a word: a text, where there is none a new one. */
function editInside(type) {
  if (isText(type)) return editText(type)
  const isMap = type instanceof Y.Map
  const children = (isMap ? [...type.values()] : type.toArray()).filter((child) => child instanceof Y.AbstractType)
  if (children.length > 0 && happens(0.8)) return editInside(oneOf(children))
  if (isMap) {
    if (happens(0.2) && type.size > 0) type.delete(oneOf([...type.keys()]))
    else type.set(oneOf(KEYS), happens(0.5) ? new Y.Text(oneOf(WORDS)) : oneOf(VALUES))
  } else if (type instanceof Y.XmlFragment) {
    if (happens(0.2) && type.length > 0) type.delete(upTo(type.length), 1)
    else type.insert(upTo(type.length + 1), [happens(0.5) ? new Y.XmlText(oneOf(WORDS)) : new Y.XmlElement('p')])
  } else if (happens(0.3) && type.length > 0) {
    const at = upTo(type.length)
    type.delete(at, Math.min(1 + upTo(4), type.length - at))
  } else {
    const values = Array.from({ length: 1 + upTo(5) }, () => oneOf(VALUES))
    if (happens(0.3)) values.push(new Y.Text(oneOf(WORDS)))
    type.insert(upTo(type.length + 1), values)
  }
}

const roots = (doc) => [doc.getText('text'), doc.getText('文😀'), doc.getArray('array'), doc.getMap('map'), doc.getXmlFragment('xml')]

function edit(doc) {
  const [text, ...others] = roots(doc)
  doc.transact(() => editInside(happens(0.7) ? text : oneOf(others)))
}

/** All shared types that are lists and alive, at most so many inside others. */
function lists(doc) {
  const found = roots(doc)
  for (let at = 0; at < found.length && found.length < 40; at += 1) {
    const type = found[at]
    const children = type instanceof Y.Map ? [...type.values()] : isText(type) ? [] : type.toArray()
    found.push(...children.filter((child) => child instanceof Y.AbstractType))
  }
  return found.filter((type) => !(type instanceof Y.Map))
}

const nameOf = (type) => (type._item === null ? Y.findRootTypeKey(type) : type._item.id)

const strings = new Map() // what texts hold now; emptied by each edit

function stringOf(text) {
  if (!strings.has(text)) strings.set(text, units(text))
  return strings.get(text)
}

/** An offset of Yjs in characters. */
function charactersOf(type, at, assoc) {
  if (!isText(type)) return at
  const string = stringOf(type)
  const whole = isInside(string, at) ? at + (assoc < 0 ? 1 : -1) : at
  return [...string.slice(0, whole)].length
}

/** A position on a boundary between characters, and what Yjs makes of it; of another user it may be inside one. */
function made(doc) {
  const type = oneOf(lists(doc))
  const string = isText(type) ? stringOf(type) : ''
  let at = upTo(type.length + 1)
  if (happens(0.1)) at = oneOf([0, type.length])
  if (isInside(string, at)) at -= 1
  const assoc = oneOf([-1, 0])
  const position = Y.createRelativePositionFromTypeIndex(type, at, assoc)
  return { root: nameOf(type), index: charactersOf(type, at, assoc), assoc, bytes: base64(Y.encodeRelativePosition(position)), json: Y.relativePositionToJSON(position) }
}

function somewhere(doc) {
  const type = oneOf(lists(doc))
  const position = Y.createRelativePositionFromTypeIndex(type, upTo(type.length + 1), oneOf([-1, 0, 1]))
  return { bytes: base64(Y.encodeRelativePosition(position)), json: Y.relativePositionToJSON(position) }
}

function resolved(doc, { bytes }) {
  const position = Y.decodeRelativePosition(Buffer.from(bytes, 'base64'))
  const place = Y.createAbsolutePositionFromRelativePosition(position, doc, false)
  if (place === null) return null
  const { type, index, assoc } = place
  const isGone = type._item?.deleted || (position.item !== null && Y.getItem(doc.store, position.item).deleted)
  return { root: nameOf(type), index: charactersOf(type, index, assoc), orphaned: Boolean(isGone) }
}

const reader = new Y.Doc()
const users = Array.from({ length: 3 }, () => ({ doc: new Y.Doc(), inbox: [] }))
const out = openSync(file, 'w')
const write = (line) => writeSync(out, `${JSON.stringify(line)}\n`)

function take(update, author) {
  for (const user of users) if (user !== author) user.inbox.push(update)
  write({ update: base64(update) })
  if (author !== null) Y.applyUpdate(reader, update, 'remote')
}

for (const user of users) {
  user.doc.clientID = upTo(2 ** 32)
  user.doc.on('update', (update, origin) => origin === 'remote' || take(update, user))
}
// Yjs takes useless formats away after remote edits; such an edit of the reader belongs to the stream too.
reader.clientID = upTo(2 ** 32)
reader.on('update', (update, origin) => origin === 'remote' || take(update, null))

const pool = []
for (let count = 1; count <= Number(edits); count += 1) {
  const user = oneOf(users)
  edit(user.doc)
  if (happens(0.3)) for (const update of user.inbox.splice(0)) Y.applyUpdate(user.doc, update, 'remote')
  if (count % BATCH !== 0) continue
  strings.clear()
  const types = lists(reader)
  const texts = types.filter(isText).map((type) => [nameOf(type), units(type)])
  const lengths = types.filter((type) => !isText(type)).map((type) => [nameOf(type), type.length])
  const anchors = Array.from({ length: 20 }, () => made(reader))
  const found = pool.map((anchor) => ({ ...anchor, leads: resolved(reader, anchor) }))
  write({ texts, lengths, made: anchors, found })
  if (count % (20 * BATCH) === 0) write({ snapshot: base64(Y.encodeStateAsUpdate(reader)) })
  const fresh = [...anchors.slice(0, 5), ...Array.from({ length: 5 }, () => somewhere(oneOf(users).doc))]
  for (const anchor of fresh) {
    if (pool.length < POOL) pool.push(anchor)
    else pool[upTo(POOL)] = anchor
  }
}
closeSync(out)
