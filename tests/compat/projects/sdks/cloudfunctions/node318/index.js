const tcb = require('@cloudbase/node-sdk')
const app = tcb.init({ env: tcb.SYMBOL_CURRENT_ENV })
const db = app.database()
const _ = db.command

const steps = {
  context: async () => app.auth().getUserInfo(),
  documents: async (event) => {
    const items = db.collection(event.collection)
    await db.createCollection(event.collection)
    const added = await items.add({ n: 1, list: [1, 2, 3] })
    await items.add([{ _id: 'a', n: 5 }, { _id: 'b', n: 6 }])
    const got = await items.doc('a').get()
    const updated = await items.where({ n: _.gte(5) }).update({ n: _.inc(1), seen: true })
    const doc = await items.doc('b').get()
    const pulled = await items.doc(added.id).update({ list: _.pull(2) })
    const list = await items.where({ list: 3 }).get()
    const both = await items.where({ _id: 'a' }).updateAndReturn({ n: _.mul(2) })
    const missing = await items.doc('zzz').get()
    const removed = await items.where({ n: _.in([7, 14]) }).remove()
    const total = await items.count()
    return { added: typeof added.id, got: got.data, updated: updated.updated, doc: doc.data, pulled: pulled.updated, list: list.data, both, missing: missing.data, removed: removed.deleted, total: total.total }
  },
  nested: async () => (await app.callFunction({ name: 'wx4', data: { step: 'context' } })).result,
}

exports.main = async (event) => steps[event.step](event)
