exports.main = async (event) => {
  if (event.wait) await new Promise((resolve) => setTimeout(resolve, event.wait))
  return { success: true, n: event.n }
}
