const cloud = require('wx-server-sdk')

cloud.init({ env: cloud.DYNAMIC_CURRENT_ENV })

const db = cloud.database()
const PAGE = 20

function escapeRegExp(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

async function list({ category, page = 0 }) {
  const where = { onSale: true }
  if (category) where.category = category
  const { data } = await db.collection('dishes')
    .where(where)
    .orderBy('rank', 'asc')
    .skip(page * PAGE)
    .limit(PAGE)
    .field({ onSale: false })
    .get()
  return { success: true, dishes: data }
}

async function search({ keyword }) {
  const text = String(keyword || '').trim()
  if (!text || text.length > 30) {
    return { success: false, reason: 'bad_keyword' }
  }
  const { data } = await db.collection('dishes')
    .where({
      onSale: true,
      name: db.RegExp({ regexp: escapeRegExp(text), options: 'i' })
    })
    .orderBy('rank', 'asc')
    .limit(PAGE)
    .get()
  return { success: true, dishes: data }
}

async function detail({ id }) {
  try {
    const { data } = await db.collection('dishes').doc(String(id)).get()
    return { success: true, dish: data }
  } catch (err) {
    return { success: false, reason: 'no_such_dish', message: err.errMsg || err.message }
  }
}

exports.main = async (event) => {
  switch (event.action) {
    case 'list': return list(event)
    case 'search': return search(event)
    case 'detail': return detail(event)
    default: return { success: false, reason: 'unknown_action' }
  }
}
