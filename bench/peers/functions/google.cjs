exports.main = (request, response) => {
  response.json({ sum: request.body.num1 + request.body.num2 })
}
