// The process that runs one version of one Node.js function. The contract is ../contract.md; needs Node 20 or later
// and nothing else.

import { createServer } from 'node:net';
import { syncBuiltinESMExports } from 'node:module';
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { ActivityPage } from './activity.mjs';
import { Calls, LINGER_MS } from './calls.mjs';
import { contextFactory } from './context.mjs';
import { openControl } from './control.mjs';
import { ExclusiveScope, installEnvironmentView, SharedScope } from './environment.mjs';
import { INVOCATION_VARIABLES } from './identity.mjs';
import { loadHandler } from './load.mjs';
import { Output } from './output.mjs';
import { rehearse } from './rehearsal.mjs';
import { describeError } from './replies.mjs';

const LISTENER = 3;
const EXIT_GRACE_MS = 2000;
/** A cell that nobody needs for this long is a cell of the pool: it has the time to rehearse. */
const REHEARSAL_AFTER_MS = 25;

const exitNow = process.exit.bind(process);

/** @type {ExclusiveScope | SharedScope} */
let scope = new ExclusiveScope();
/** @type {Calls | undefined} */
let calls;
let loading = false;
let loadHasFailed = false;
let leaving = false;
/** Thrown by `process.exit` in a function, so that its code goes no further while the process refuses calls. */
const EXIT = new Error('process.exit() was called: this instance is ending');

const output = new Output(() => scope.current()?.caller.requestId ?? '');
const send = openControl(obey, () => exitHard(1));
const rehearsal = setTimeout(() => {
  rehearse(output).catch((error) => output.emit('warn', `rehearsal failed: ${error.stack}`));
}, REHEARSAL_AFTER_MS);

process.exit = exitByFunction;
// An interrupt typed at the terminal reaches every process there; ending instances is the node's business.
process.on('SIGINT', () => {});
process.on('uncaughtException', fatal);
process.on('unhandledRejection', fatal);
output.install();
send({ event: 'booted' });

function obey(message) {
  switch (message.op) {
    case 'load':
      clearTimeout(rehearsal);
      return void load(message);
    case 'quiesce':
      calls?.quiesce();
      return send({ event: 'quiesced' });
    case 'resume':
      calls?.resume();
      return send({ event: 'resumed' });
    case 'end':
      return end();
    default:
      return output.emit('warn', `unknown operation on the control channel: ${message.op}`);
  }
}

async function load(order) {
  if (loading) return;
  loading = true;
  const startedMs = performance.now();
  try {
    prepareEnvironment(order);
    const main = await loadHandler(order.code, order.handler);
    const loadMs = performance.now() - startedMs;
    // A rejection that the modules left to nobody is reported before the next turn, and is a failure to load: served
    // calls would only find a process that is ending.
    await nextTurn();
    if (!loadHasFailed) serve(order, main, loadMs);
  } catch (error) {
    loadFailed(describeError(error));
  }
}

/** The variables of the instance, before any code of the function runs. */
function prepareEnvironment(order) {
  for (const name of INVOCATION_VARIABLES) delete process.env[name];
  for (const [name, value] of Object.entries(order.environment)) process.env[name] = value;
  if (order.concurrency > 1) scope = new SharedScope();
  installEnvironmentView(scope, { TCB_ENV: order.context.namespace });
  syncBuiltinESMExports(); // `import { env, exit } from 'node:process'` gets what is installed here, too.
}

function serve(order, main, loadMs) {
  const loaded = {
    main,
    name: order.context.function_name,
    namespace: order.context.namespace,
    concurrency: order.concurrency,
    timeoutMs: order.timeout_ms,
    loadMs,
    context: contextFactory(order.context, order.environment, order.timeout_ms),
  };
  const served = new Calls(loaded, scope, new ActivityPage(), output);
  served.onTimeout = () => leaveWith(() => exitHard(1));
  calls = served;
  const server = createServer((socket) => served.accept(socket));
  server.listen({ fd: LISTENER }, () => send({ event: 'loaded', load_ms: Math.round(loadMs * 1000) / 1000 }));
}

function loadFailed(error) {
  if (loadHasFailed) return;
  loadHasFailed = true;
  output.emit('error', error.stackTrace || error.errorMessage);
  output.flush();
  send({ event: 'load_failed', error }, () => exitHard(1));
}

function end() {
  if (calls === undefined) return exitHard(0);
  calls.quiesce();
  // Calls that the edge has sent already but that were not read yet are refused, not cut off.
  setTimeout(() => calls.leave(() => exitNow(0)), LINGER_MS);
}

/**
 * Everything is answered or will be: refuse for a while what is on its way, then be gone, whatever the function's own
 * code does meanwhile.
 * @param {() => void} exit
 */
function leaveWith(exit) {
  if (leaving) return;
  leaving = true;
  setTimeout(() => calls.leave(exit), LINGER_MS);
  setTimeout(exit, LINGER_MS + calls.loaded.timeoutMs + EXIT_GRACE_MS);
}

/** An exception nobody caught. The state of the process is unknown from here on. */
function fatal(thrown) {
  if (thrown === EXIT) return;
  const description = describeError(thrown);
  output.emit('error', description.stackTrace || description.errorMessage);
  if (calls === undefined) {
    if (loading) loadFailed(description);
    else exitHard(1);
    return;
  }
  calls.retire();
  calls.failAll(thrown);
  leaveWith(() => exitHard(1));
}

/**
 * `process.exit` as the function sees it. Its callers are answered first, and calls that are on their way are refused
 * before the process is gone; nothing after it runs, unless the function catches what is thrown here.
 */
function exitByFunction(code) {
  const exitCode = code ?? process.exitCode ?? 0;
  output.flush();
  if (calls !== undefined) {
    calls.retire();
    calls.exitAll(exitCode);
    leaveWith(() => exitNow(exitCode));
    throw EXIT;
  }
  if (loading) {
    const errorMessage = `function exited with code ${exitCode} while it was loaded`;
    send({ event: 'load_failed', error: { errorCode: 1, errorMessage, stackTrace: '' } });
  }
  exitNow(exitCode);
}

/** Without the function's exit handlers: they may never return. */
function exitHard(code) {
  process.removeAllListeners('exit');
  exitNow(code);
}
