const ways = {
  throw: () => { throw new Error('thrown on purpose') },
  reject: () => Promise.reject(new TypeError('rejected on purpose')),
  string: () => { throw 'just a string' },
  unhandled: () => { Promise.reject(new Error('nobody listens')); return new Promise((resolve) => setTimeout(resolve, 5000)) },
  exit: () => process.exit(3),
  big: () => 'x'.repeat(1024 * 1024 + 1),
  circular: () => { const a = {}; a.a = a; return a },
  bigint: () => ({ n: 10n }),
  undefined: () => undefined,
  forge: () => ({ code: 'NOT_AN_ERROR', message: 'a result with a code' }),
  ok: () => 'ok',
}
exports.main = (event) => ways[event.way]()
