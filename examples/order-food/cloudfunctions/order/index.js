const cloud = require('wx-server-sdk')

cloud.init({ env: cloud.DYNAMIC_CURRENT_ENV })

const db = cloud.database()
const _ = db.command
const PAGE_MAX = 20
const DISHES_MAX = 10
const COUNT_MAX = 99

class Refused extends Error {
  constructor(reason, detail) {
    super(reason)
    this.reason = reason
    this.detail = detail
  }
}

function checked(items) {
  if (!Array.isArray(items) || items.length === 0 || items.length > DISHES_MAX) {
    throw new Refused('bad_items')
  }
  return items.map(({ dishId, count }) => {
    if (typeof dishId !== 'string' || !Number.isInteger(count) || count < 1 || count > COUNT_MAX) {
      throw new Refused('bad_items')
    }
    return { dishId, count }
  })
}

// Checking and taking is one update: of many orders at once only as many succeed as there is stock.
async function takeStock({ dishId, count }) {
  const { stats } = await db.collection('dishes')
    .where({ _id: dishId, onSale: true, stock: _.gte(count) })
    .update({ data: { stock: _.inc(-count), sold: _.inc(count) } })
  return stats.updated === 1
}

function putBack(items) {
  return Promise.all(items.map(({ dishId, count }) =>
    db.collection('dishes').doc(dishId).update({ data: { stock: _.inc(count), sold: _.inc(-count) } })
  ))
}

async function submit({ items, remark = '' }, openid) {
  const wanted = checked(items)
  const { data: dishes } = await db.collection('dishes')
    .where({ _id: _.in(wanted.map(item => item.dishId)) })
    .get()
  const byId = new Map(dishes.map(dish => [dish._id, dish]))

  const taken = []
  try {
    for (const item of wanted) {
      if (!byId.has(item.dishId)) throw new Refused('no_such_dish', item.dishId)
      if (!await takeStock(item)) throw new Refused('sold_out', item.dishId)
      taken.push(item)
    }
    const lines = wanted.map(({ dishId, count }) => {
      const { name, price } = byId.get(dishId)
      return { dishId, name, price, count }
    })
    const total = lines.reduce((sum, line) => sum + line.price * line.count, 0)
    const { _id } = await db.collection('orders').add({
      data: {
        _openid: openid,
        lines,
        total,
        remark: String(remark).slice(0, 200),
        status: 'placed',
        createdAt: db.serverDate()
      }
    })
    return { _id, total }
  } catch (err) {
    await putBack(taken)
    throw err
  }
}

// The order stands even when the message cannot be written.
async function announce(orderId, total) {
  try {
    const { result } = await cloud.callFunction({ name: 'notify', data: { action: 'placed', orderId, total } })
    return result.to
  } catch (err) {
    console.error('notify failed', orderId, err)
    return null
  }
}

async function mine({ page = 0, size = 10 }, openid) {
  const limit = Math.min(Math.max(1, size | 0), PAGE_MAX)
  const orders = db.collection('orders').where({ _openid: openid })
  const { total } = await orders.count()
  const { data } = await orders
    .orderBy('createdAt', 'desc')
    .orderBy('_id', 'asc')
    .skip((page | 0) * limit)
    .limit(limit)
    .get()
  return { success: true, total, orders: data }
}

async function detail({ id }, openid) {
  const { data } = await db.collection('orders').where({ _id: String(id), _openid: openid }).limit(1).get()
  if (data.length === 0) throw new Refused('no_such_order')
  return { success: true, order: data[0] }
}

async function cancel({ id }, openid) {
  const { stats } = await db.collection('orders')
    .where({ _id: String(id), _openid: openid, status: 'placed' })
    .update({ data: { status: 'cancelled', cancelledAt: db.serverDate() } })
  if (stats.updated !== 1) throw new Refused('no_such_order')
  const { order } = await detail({ id }, openid)
  await putBack(order.lines)
  return { success: true }
}

exports.main = async (event, context) => {
  const { OPENID } = cloud.getWXContext()
  if (!OPENID) return { success: false, reason: 'not_signed_in' }
  try {
    switch (event.action) {
      case 'submit': {
        const { _id, total } = await submit(event, OPENID)
        console.log('order placed', _id, total)
        return { success: true, orderId: _id, total, notified: await announce(_id, total) }
      }
      case 'mine': return await mine(event, OPENID)
      case 'detail': return await detail(event, OPENID)
      case 'cancel': return await cancel(event, OPENID)
      default: return { success: false, reason: 'unknown_action' }
    }
  } catch (err) {
    if (err instanceof Refused) return { success: false, reason: err.reason, detail: err.detail }
    throw err
  }
}
