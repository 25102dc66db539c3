const tcb = require('@cloudbase/node-sdk')
const app = tcb.init({ env: tcb.SYMBOL_CURRENT_ENV })
const db = app.database()
const _ = db.command
const battery = require('./battery')({ db, quiet: db, wrap: (data) => data })

const steps = {
  battery,
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
  transactions: async (event) => {
    await db.createCollection(event.collection)
    const items = db.collection(event.collection)
    await items.add([{ _id: 'a', n: 1 }, { _id: 'b', n: 2 }])
    const result = await db.runTransaction(async (transaction) => {
      const inside = transaction.collection(event.collection)
      const one = await inside.doc('a').get()
      const none = await inside.doc('nobody').get()
      const added = await inside.add({ n: 10 })
      const updated = await inside.doc('a').update({ n: _.inc(5) })
      const set = await inside.doc('c').set({ n: 3 })
      const removed = await inside.doc('b').remove()
      const both = await inside.where({ n: 6 }).updateAndReturn({ n: _.inc(1) })
      const found = await inside.where({ n: _.gt(2) }).orderBy('n', 'desc').limit(2).get()
      return { one: one.data, none: none.data, added: [typeof added.id, added.inserted], updated: updated.updated, upserted: set.upserted, removed: removed.deleted, both: both.doc, found: found.data.map((item) => item.n) }
    })
    const one = await db.startTransaction()
    const two = await db.startTransaction()
    await one.collection(event.collection).doc('a').get()
    await two.collection(event.collection).doc('a').update({ n: 100 })
    const told = async (work) => work().catch((error) => ({ code: error.code, message: error.message }))
    const conflict = await told(() => one.collection(event.collection).doc('a').update({ n: 200 }))
    await two.commit()
    await two.commit()
    const ended = await told(() => two.collection(event.collection).doc('a').set({ n: 300 }))
    const last = await items.doc('a').get()
    return { ...result, conflict, ended, last: last.data }
  },
  stock: async (event) => {
    await db.createCollection(event.collection)
    await db.collection(event.collection).add({ _id: 'stock', left: event.left })
  },
  left: async (event) => (await db.collection(event.collection).doc('stock').get()).data[0].left,
  buy: async (event) => {
    const buyers = Array.from({ length: event.buyers }, () => db.runTransaction(async (transaction) => {
      const stock = transaction.collection(event.collection).doc('stock')
      const { data } = await stock.get()
      await stock.update({ left: data.left - 1 })
      return data.left
    }))
    return Promise.all(buyers)
  },
  nested: async () => (await app.callFunction({ name: 'wx4', data: { step: 'context' } })).result,
}

exports.main = async (event) => steps[event.step](event)
