const { setTimeout: wait } = require('node:timers/promises')

exports.main = async (event) => {
  await wait(20)
  return { sum: event.num1 + event.num2 }
}
