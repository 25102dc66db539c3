// Never answers: at once, after an await, or politely (the event loop stays free).
exports.main = async (event) => {
  if (event.how === 'await') await new Promise((resolve) => setTimeout(resolve, 10))
  if (event.how === 'polite') return new Promise(() => {})
  if (event.how === 'not') return { pid: process.pid }
  for (;;);
}
