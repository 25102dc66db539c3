// One battery of calls, as a function written for WeChat makes them. The folder wx26 holds the same file.
const cloud = require('wx-server-sdk')
cloud.init({ env: cloud.DYNAMIC_CURRENT_ENV })
const db = cloud.database()
const _ = db.command

const attempt = async (run) => {
  try {
    return await run()
  } catch (error) {
    return { errCode: error.errCode, errMsg: String(error.errMsg || error.message) }
  }
}

const steps = {
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
  nested: async (event) => (await cloud.callFunction({ name: event.name || 'wx4', data: { step: 'context' } })).result,
  recurse: async (event) => attempt(async () => (await cloud.callFunction({ name: event.name, data: { step: 'recurse', name: event.name } })).result),
  failing: async () => attempt(() => cloud.callFunction({ name: 'no-such-function', data: {} })),
}

exports.main = async (event) => steps[event.step](event)
