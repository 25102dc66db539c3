exports.main = async (event) => ({ sum: event.num1 + event.num2 })
