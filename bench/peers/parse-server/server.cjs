// Parse Server on PostgreSQL over a unix socket, on loopback. Nothing is logged: that is to its advantage.
const express = require('express')
const { ParseServer } = require('parse-server')

async function main() {
  const { PORT, PARSE_KEY, PGHOST, PGDATABASE } = process.env
  const parse = new ParseServer({
    appId: 'bench',
    masterKey: PARSE_KEY,
    serverURL: `http://127.0.0.1:${PORT}/parse`,
    databaseURI: `postgres://cloudlet@localhost/${PGDATABASE}`,
    databaseOptions: { host: PGHOST },
    allowCustomObjectId: true,
    allowClientClassCreation: true,
    silent: true,
    logsFolder: null,
  })
  await parse.start()
  const app = express()
  app.use('/parse', parse.app)
  app.listen(Number(PORT), '127.0.0.1')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
