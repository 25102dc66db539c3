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

/** Where a context keeps the variables of its invocation; not seen by copies of it. */
const VARIABLES = Symbol('variables');

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
  // Few functions look at these two, which cost more than all the rest: they are made when asked for. The same two
  // functions serve every context: a getter of its own would give each a hidden class of its own, which kept finished
  // calls alive until a full garbage collection and halved the calls per second.
  const environText = lazy('environ', (context) => environOf({ ...platform, ...context[VARIABLES] }));
  const environmentText = lazy('environment', (context) => JSON.stringify({ ...platform, ...context[VARIABLES] }));
  return (invocation) => {
    const { requestId } = invocation.caller;
    const context = Object.create(Object.prototype, { [VARIABLES]: { value: invocation.variables } });
    context.callbackWaitsForEmptyEventLoop = true;
    Object.assign(context, constants);
    context.time_limit_in_ms = timeoutMs;
    context.request_id = context.requestId = requestId;
    Object.defineProperty(context, 'environ', environText);
    Object.defineProperty(context, 'environment', environmentText);
    context.getRemainingTimeInMillis = () => Math.max(0, Math.round(invocation.deadlineMs - monotonicMs()));
    return context;
  };
}

/**
 * A property that is computed when it is read, and an ordinary one once it is written.
 * @param {string} name
 * @param {(context: object) => string} compute
 */
function lazy(name, compute) {
  return {
    get() {
      return compute(this);
    },
    set(value) {
      Object.defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true });
    },
    enumerable: true,
    configurable: true,
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
