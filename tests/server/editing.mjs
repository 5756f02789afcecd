// A document as Tiptap keeps it, written by two people with Yjs: node editing.mjs <yjs package folder>
//
// One JSON line per edit, in order: whose it is and the update.

import { createRequire } from 'node:module'

const [packages] = process.argv.slice(2)
const Y = createRequire(`${packages}/`)('yjs')

const rows = []
const docs = { ada: new Y.Doc(), eve: new Y.Doc() }
for (const [by, doc] of Object.entries(docs)) {
  doc.on('update', (update, origin) => {
    if (origin === 'remote') return
    rows.push({ by, update: Buffer.from(update).toString('base64') })
    for (const other of Object.values(docs)) if (other !== doc) Y.applyUpdate(other, update, 'remote')
  })
}

/** One transaction of somebody, as an editor makes one of a step. */
const edit = (by, change) => docs[by].transact(() => change(docs[by].getXmlFragment('default'), docs[by]))

function text(characters) {
  const node = new Y.XmlText()
  node.insert(0, characters)
  return node
}

function element(tag, children = [], attributes = {}) {
  const node = new Y.XmlElement(tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  node.insert(0, children)
  return node
}

edit('ada', (page) =>
  page.insert(0, [
    element('heading', [text('Plan 😀')], { level: '1' }),
    element('paragraph', [text('First we eat.')]),
    element('paragraph', [text('Then we sleep.')]),
    element('bulletList', [element('listItem', [element('paragraph', [text('bread')])])]),
  ]),
)
// in the middle of what another wrote, in bold
edit('eve', (page) => page.get(1).get(0).insert(9, 'always ', { bold: true }))
edit('eve', (page) => page.get(0).setAttribute('level', '2'))
// another item of a list
edit('eve', (page) => page.get(3).insert(1, [element('listItem', [element('paragraph', [text('wine')])])]))
// some of it is deleted, and some formatted
edit('ada', (page) => page.get(1).get(0).delete(0, 6))
edit('ada', (page) => page.get(2).get(0).format(0, 4, { italic: {} }))
// a paragraph that is moved is deleted and written once more
edit('eve', (page) => {
  page.delete(2, 1)
  page.insert(1, [element('paragraph', [text('Then we sleep.')])])
})
// a line break in a line, and an empty line at the end
edit('ada', (page) => page.get(3).get(1).get(0).insert(1, [element('hardBreak'), text('or water')]))
edit('eve', (page) => page.insert(4, [element('paragraph')]))
// beside it a board of notes
edit('ada', (_, doc) => {
  const card = new Y.Map()
  doc.getMap('board').set('card', card)
  card.set('title', new Y.Text('To do'))
  card.set('tags', Y.Array.from(['red', 'new']))
})
edit('eve', (_, doc) => {
  const card = doc.getMap('board').get('card')
  card.get('title').insert(0, 'Not ')
  card.get('tags').push([{ size: 3 }])
  card.set('done', false)
})

for (const row of rows) console.log(JSON.stringify(row))
