// Preloaded into Node peers, which listen on every address of the machine: a benchmark stays on loopback.
const { Server } = require('node:net')

const listen = Server.prototype.listen
Server.prototype.listen = function (port, ...rest) {
  const first = typeof port === 'number' || typeof port === 'string' ? [Number(port), '127.0.0.1'] : [port]
  return listen.call(this, ...first, ...rest)
}
