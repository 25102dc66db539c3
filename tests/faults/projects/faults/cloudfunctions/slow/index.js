// Takes its time to load.
const began = Date.now()
while (Date.now() < began + 500);

exports.main = async (event) => ({ success: true, n: event.n })
