// The second argument of a handler (contract, section 3).

import { monotonicMs } from './activity.mjs';

/** Variables of the platform that a function may read from its context too; no secrets, none of the user's. */
const CONSTANT_NAMES = [
  'TENCENTCLOUD_RUNENV',
  'TENCENTCLOUD_REGION',
  'SCF_NAMESPACE',
  '_SCF_TCB_LOG',
  'TCB_CONTEXT_CNFG',
];

/**
 * Make the contexts of one version.
 * @param {Record<string, unknown>} constants the `context` of the load operation
 * @param {Record<string, string>} environment the `environment` of the load operation
 * @param {number} timeoutMs of the version
 * @returns {(invocation: import('./calls.mjs').Invocation) => object}
 */
export function contextFactory(constants, environment, timeoutMs) {
  const platform = {};
  for (const name of CONSTANT_NAMES) if (environment[name] !== undefined) platform[name] = environment[name];
  return (invocation) => {
    const { requestId } = invocation.caller;
    const shown = { ...platform, ...invocation.variables };
    // Plain values, though few functions look at the last two: getters on each context give every one a hidden class
    // of its own, which kept finished calls alive until a full garbage collection and halved the calls per second.
    return {
      callbackWaitsForEmptyEventLoop: true,
      ...constants,
      time_limit_in_ms: timeoutMs,
      request_id: requestId,
      requestId,
      environ: environOf(shown),
      environment: JSON.stringify(shown),
      getRemainingTimeInMillis: () => Math.max(0, Math.round(invocation.deadlineMs - monotonicMs())),
    };
  };
}

function environOf(variables) {
  let text = '';
  for (const name in variables) {
    const value = variables[name];
    if (value !== undefined) text += text === '' ? `${name}=${value}` : `;${name}=${value}`;
  }
  return text;
}
