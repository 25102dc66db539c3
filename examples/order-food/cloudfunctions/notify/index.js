const cloud = require('wx-server-sdk')

cloud.init()

const db = cloud.database()

// Called by other functions: the user is the one who called them.
exports.main = async (event, context) => {
  const { OPENID, SOURCE } = cloud.getWXContext()
  await db.collection('messages').add({
    data: {
      _openid: OPENID,
      kind: event.action,
      orderId: event.orderId,
      total: event.total,
      read: false,
      createdAt: new Date()
    }
  })
  if (process.env.TEMPLATE_ID) {
    await cloud.openapi.subscribeMessage.send({
      touser: OPENID,
      templateId: process.env.TEMPLATE_ID,
      page: 'pages/orders/orders',
      data: { character_string1: { value: event.orderId }, amount2: { value: (event.total / 100).toFixed(2) } }
    })
  }
  return { to: OPENID, source: SOURCE }
}
