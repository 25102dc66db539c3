// Who is calling: from the platform's headers to the variables of one invocation (contract, section 3).

/** Header name → field of Caller and a bit of its own. Each header may come once. */
const FIELDS = new Map(
  [
    ['x-request-id', 'requestId'],
    ['x-cloudlet-env', 'environment'],
    ['x-cloudlet-function', 'functionName'],
    ['x-cloudlet-uid', 'uid'],
    ['x-cloudlet-openid', 'openid'],
    ['x-cloudlet-appid', 'appid'],
    ['x-cloudlet-unionid', 'unionid'],
    ['x-cloudlet-login-type', 'loginType'],
    ['x-cloudlet-sid', 'sessionId'],
    ['x-cloudlet-source', 'source'],
    ['x-cloudlet-client-ip', 'clientIp'],
    ['x-cloudlet-timeout-ms', 'timeoutMs'],
    ['x-cloudlet-depth', 'depth'],
  ].map(([header, field], index) => [header, { field, bit: 1 << index }]),
);

const NOT_ASCII = /[^\x00-\x7f]/;
const WHOLE_NUMBER = /^\d{1,9}$/;

/** The variables that belong to one invocation. All others live as long as the instance. */
export const INVOCATION_VARIABLES = Object.freeze([
  'TCB_CONTEXT_KEYS',
  'WX_CONTEXT_KEYS',
  'TCB_ENV',
  'TCB_SEQID',
  'TRIGGER_SRC',
  'TCB_SESSIONTOKEN',
  'TCB_SOURCE',
  'TCB_UUID',
  'TCB_ISANONYMOUS_USER',
  'TCB_SOURCE_IP',
  'LOGINTYPE',
  'WX_APPID',
  'WX_OPENID',
  'WX_UNIONID',
  'WX_API_TOKEN',
  'WX_CLIENTIP',
]);

/** What the headers of a call say; '' = not known. */
export class Caller {
  requestId = '';
  environment = '';
  functionName = '';
  uid = '';
  openid = '';
  appid = '';
  unionid = '';
  loginType = '';
  sessionId = '';
  source = '';
  clientIp = '';
  timeoutMs = '';
  depth = '';
  /** What is wrong with the headers, '' = nothing. */
  problem = '';
}

/**
 * Read the platform's headers. Never throws: see `problem`.
 * @param {string[]} headers names in lower case and values in turn
 */
export function callerOf(headers) {
  const caller = new Caller();
  let seen = 0;
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index];
    const known = FIELDS.get(name);
    if (known === undefined) continue;
    if ((seen & known.bit) !== 0) caller.problem = `header ${name} is given twice`;
    seen |= known.bit;
    const value = headers[index + 1];
    caller[known.field] = NOT_ASCII.test(value) ? Buffer.from(value, 'latin1').toString('utf8') : value;
  }
  if (caller.timeoutMs !== '' && !WHOLE_NUMBER.test(caller.timeoutMs)) {
    caller.problem = 'header x-cloudlet-timeout-ms is not a number of milliseconds';
  }
  if (caller.depth !== '' && !WHOLE_NUMBER.test(caller.depth)) {
    caller.problem = 'header x-cloudlet-depth is not a number';
  }
  return caller;
}

/** The variables of one invocation; `undefined` = not known, and not to be seen. */
export class Variables {
  /**
   * @param {Caller} caller
   * @param {string} environment the instance's own environment
   */
  constructor(caller, environment) {
    const known = caller.uid !== '';
    const token = invocationToken(caller);
    this.TRIGGER_SRC = 'tcb';
    this.TCB_ENV = environment;
    this.TCB_SEQID = caller.requestId || undefined;
    this.TCB_SESSIONTOKEN = token;
    this.TCB_SOURCE = caller.source || undefined;
    this.TCB_UUID = caller.uid || undefined;
    this.TCB_ISANONYMOUS_USER = known ? String(caller.loginType === 'ANONYMOUS') : undefined;
    this.TCB_SOURCE_IP = caller.clientIp || undefined;
    this.LOGINTYPE = caller.loginType || undefined;
    this.WX_APPID = caller.appid || undefined;
    this.WX_OPENID = caller.openid || undefined;
    this.WX_UNIONID = caller.unionid || undefined;
    this.WX_API_TOKEN = token;
    this.WX_CLIENTIP = caller.clientIp || undefined;
    this.TCB_CONTEXT_KEYS = tcbKeys(this);
    this.WX_CONTEXT_KEYS = wxKeys(this);
  }
}

// The SDKs believe only what these two lists name.

function tcbKeys(variables) {
  let keys = 'TCB_ENV,TCB_SESSIONTOKEN';
  if (variables.TCB_SEQID !== undefined) keys += ',TCB_SEQID';
  if (variables.TCB_SOURCE !== undefined) keys += ',TCB_SOURCE';
  if (variables.TCB_UUID !== undefined) keys += ',TCB_UUID,TCB_ISANONYMOUS_USER';
  if (variables.TCB_SOURCE_IP !== undefined) keys += ',TCB_SOURCE_IP';
  return keys;
}

function wxKeys(variables) {
  let keys = 'WX_API_TOKEN';
  if (variables.WX_APPID !== undefined) keys += ',WX_APPID';
  if (variables.WX_OPENID !== undefined) keys += ',WX_OPENID';
  if (variables.WX_UNIONID !== undefined) keys += ',WX_UNIONID';
  if (variables.WX_CLIENTIP !== undefined) keys += ',WX_CLIENTIP';
  return keys;
}

/** Carries the caller into nested calls; believed only on the instance's own platform socket. */
function invocationToken(caller) {
  const claims = {
    r: caller.requestId,
    u: caller.uid,
    o: caller.openid,
    a: caller.appid,
    n: caller.unionid,
    l: caller.loginType,
    s: caller.sessionId,
    c: caller.source,
    d: Number(caller.depth),
    i: caller.clientIp,
  };
  return Buffer.from(JSON.stringify(claims)).toString('base64url');
}
