// One battery of calls, as a function written for WeChat makes them. The folder wx26 holds the same file.
const cloud = require('wx-server-sdk')
cloud.init({ env: cloud.DYNAMIC_CURRENT_ENV })
const db = cloud.database()
const _ = db.command
const battery = require('./battery')({ db, quiet: cloud.database({ throwOnNotFound: false }), wrap: (data) => ({ data }) })

const attempt = async (run) => {
  try {
    return await run()
  } catch (error) {
    return { errCode: error.errCode, errMsg: String(error.errMsg || error.message) }
  }
}

const steps = {
  battery,
  context: async () => {
    const { OPENID, APPID, ENV, SOURCE } = cloud.getWXContext()
    return { OPENID, APPID, ENV, SOURCE }
  },
  documents: async (event) => {
    const name = event.collection
    const created = await attempt(() => db.createCollection(name))
    const items = db.collection(name)
    const added = await items.add({ data: { n: 1, at: new Date(1700000000000), tags: ['a', 'b'], o: { p: 1, q: { r: 's' } } } })
    await items.add({ data: { _id: 'mine', n: 2, tags: [], _openid: 'x' } })
    const duplicate = await attempt(() => items.add({ data: { _id: 'mine' } }))
    const one = await items.doc('mine').get()
    const byDate = await items.where({ at: _.gte(new Date(1600000000000)) }).get()
    const updated = await items.doc('mine').update({ data: { n: _.inc(3), o: { p: 5 }, tags: _.push(['x', 'y']) } })
    const nested = await items.where({ o: { q: { r: 's' } } }).get()
    const merged = await items.where({ n: _.gt(0).and(_.lt(100)) }).update({ data: { o: { z: true } } })
    const whole = await items.doc(added._id).get()
    const replaced = await items.doc('mine').set({ data: { fresh: true } })
    const created2 = await items.doc('made-by-set').set({ data: { fresh: true } })
    const all = await items.orderBy('_id', 'asc').skip(0).limit(10).field({ _id: true }).get()
    const total = await items.count()
    const like = await items.where({ _id: db.RegExp({ regexp: '^MA', options: 'i' }) }).count()
    const removed = await items.doc('mine').remove()
    const gone = await attempt(() => items.doc('mine').get())
    const noUpdate = await items.where({ _id: 'nobody' }).update({ data: { a: 1 } })
    const missing = await attempt(() => db.collection(name + '_missing').get())
    await items.add({ data: { _id: 'dated', at: db.serverDate() } })
    const dated = await items.doc('dated').get()
    return {
      created, added: typeof added._id, duplicate, one: one.data, byDate: byDate.data.length,
      isDate: byDate.data[0].at instanceof Date, updated: updated.stats, nested: nested.data.length, merged: merged.stats,
      whole: whole.data, replaced: replaced.stats, created2, all: all.data.length, total: total.total, like: like.total,
      removed: removed.stats, gone, noUpdate: noUpdate.stats, missing, dated: dated.data.at instanceof Date,
    }
  },
  transactions: async (event) => {
    await db.createCollection(event.collection)
    const items = db.collection(event.collection)
    await items.add({ data: { _id: 'a', n: 1, at: new Date(1700000000000) } })
    await items.add({ data: { _id: 'b', n: 2 } })
    const result = await db.runTransaction(async (transaction) => {
      const inside = transaction.collection(event.collection)
      const one = await inside.doc('a').get()
      const added = await inside.add({ data: { n: 10, at: db.serverDate() } })
      const updated = await inside.doc('a').update({ data: { n: _.inc(5) } })
      const created = await inside.doc('c').set({ data: { n: 3 } })
      const removed = await inside.doc('b').remove()
      const found = await inside.where({ n: _.gt(2) }).get()
      const outside = await items.count()
      return { one: one.data.n, isDate: one.data.at instanceof Date, added: typeof added._id, updated: updated.stats, created: created._id, removed: removed.stats, found: found.data.map((item) => item.n).sort((x, y) => x - y), outside: outside.total }
    })
    const after = await items.orderBy('n', 'asc').get()
    const rolledBack = await db.runTransaction(async (transaction) => {
      await transaction.collection(event.collection).doc('a').update({ data: { n: 0 } })
      await transaction.rollback('changed my mind')
    }).catch((reason) => reason)
    const missing = await db.runTransaction(async (transaction) => {
      await transaction.collection(event.collection).doc('nobody').get()
    }).catch((error) => String(error.errMsg || error.message))
    const transaction = await db.startTransaction()
    await transaction.collection(event.collection).doc('a').update({ data: { n: 0 } })
    await transaction.rollback()
    const late = await attempt(() => transaction.collection(event.collection).doc('a').update({ data: { n: 0 } }))
    const last = await items.doc('a').get()
    return { ...result, after: after.data.map((item) => item.n), rolledBack, missing, late, last: last.data.n }
  },
  buy: async (event) => {
    const buyers = Array.from({ length: event.buyers }, () => db.runTransaction(async (transaction) => {
      const stock = transaction.collection(event.collection).doc('stock')
      const { data } = await stock.get()
      await stock.update({ data: { left: data.left - 1 } })
      return data.left
    }))
    return Promise.all(buyers)
  },
  nested: async (event) => (await cloud.callFunction({ name: event.name || 'wx4', data: { step: 'context' } })).result,
  recurse: async (event) => attempt(async () => (await cloud.callFunction({ name: event.name, data: { step: 'recurse', name: event.name } })).result),
  failing: async () => attempt(() => cloud.callFunction({ name: 'no-such-function', data: {} })),
}

exports.main = async (event) => steps[event.step](event)
