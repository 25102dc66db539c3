// Returns what it was given, and who it believes is calling.
let calls = 0
exports.main = async (event, context) => {
  calls += 1
  console.log('echo called', calls)
  return {
    event,
    calls,
    pid: process.pid,
    openid: process.env.WX_OPENID ?? null,
    source: process.env.TCB_SOURCE ?? null,
    context: {
      request_id: context.request_id,
      function_name: context.function_name,
      namespace: context.namespace,
      memory_limit_in_mb: context.memory_limit_in_mb,
      time_limit_in_ms: context.time_limit_in_ms,
      environment: JSON.parse(context.environment).WX_OPENID ?? null,
    },
  }
}
