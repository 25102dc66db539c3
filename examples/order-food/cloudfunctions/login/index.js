const cloud = require('wx-server-sdk')

// The id of the cloud this project once lived in; other clouds alias it.
cloud.init({ env: 'order-food-3g8ldgo6c1' })

const db = cloud.database()
const _ = db.command

// The first visit creates the user. Two first visits at once meet at the _id: one adds, the other counts.
async function visit(openid) {
  const users = db.collection('users')
  const counted = await users.where({ _id: openid }).update({
    data: { visits: _.inc(1), lastSeen: db.serverDate() }
  })
  if (counted.stats.updated === 0) {
    try {
      await users.add({
        data: { _id: openid, _openid: openid, visits: 1, firstSeen: db.serverDate(), lastSeen: db.serverDate() }
      })
    } catch (err) {
      await users.doc(openid).update({ data: { visits: _.inc(1) } })
    }
  }
  const user = await users.doc(openid).get()
  return user.data
}

exports.main = async (event, context) => {
  const wxContext = cloud.getWXContext()
  if (!wxContext.OPENID) {
    return { success: false, reason: 'not_signed_in' }
  }
  const user = await visit(wxContext.OPENID)
  return {
    success: true,
    openid: wxContext.OPENID,
    appid: wxContext.APPID,
    unionid: wxContext.UNIONID,
    userInfo: event.userInfo,
    visits: user.visits
  }
}
