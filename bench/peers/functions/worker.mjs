export default {
  async fetch(request) {
    const event = await request.json()
    return Response.json({ sum: event.num1 + event.num2 })
  },
}
