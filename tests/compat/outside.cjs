// A program on somebody's server that uses an SDK with credentials: node outside.cjs PACKAGE CREDENTIALS-JSON COLLECTION
const [name, credentials, collection] = process.argv.slice(2)
const { envId, secretId, secretKey, serviceUrl } = JSON.parse(credentials)
const sdk = require(name)

const main = async () => {
  const options = { env: envId, secretId, secretKey, serviceUrl }
  const wechat = name === 'wx-server-sdk'
  const app = wechat ? sdk : sdk.init(options)
  if (wechat) sdk.init(options)
  const db = app.database()
  const wrap = (data) => (wechat ? { data } : data)
  await db.createCollection(collection)
  await db.collection(collection).add(wrap({ _id: 'one', n: 1 }))
  await db.collection(collection).doc('one').update(wrap({ n: db.command.inc(1) }))
  const { data } = await db.collection(collection).where({ n: 2 }).get()
  const call = await app.callFunction({ name: wechat ? 'wx4' : 'wx4', data: { step: 'context' } })
  return { data, context: call.result }
}

main().then(
  (answer) => console.log(JSON.stringify(answer)),
  (error) => console.log(JSON.stringify({ failed: { code: error.code ?? error.errCode, message: String(error.message ?? error.errMsg) } })),
)
