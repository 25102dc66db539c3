exports.main = (event, context, callback) => {
  setImmediate(() => (event.fail ? callback(new Error('callback failed')) : callback(null, { sum: event.a + event.b })))
}
