"""The instance contract: what only Node.js has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.contract.runtime_cell import RUNTIMES, Cell, Order, RuntimeUnderTest, cell

NODES = [runtime for runtime in RUNTIMES if runtime.runtime.language == "node"]


@pytest.fixture(params=NODES, ids=lambda runtime: runtime.name)
def shim(request: pytest.FixtureRequest) -> Iterator[Cell]:
    runtime: RuntimeUnderTest = request.param
    if not runtime.interpreter:
        pytest.skip(f"{runtime.name} is not installed on this machine")
    with cell(runtime.runtime, runtime.interpreter) as started:
        yield started


def load(shim: Cell, source: str, order: Order | None = None) -> None:
    shim.write_file("index.js", source)
    event = shim.load(order or Order())
    assert event["event"] == "loaded", event


class TestHandlers:
    def test_every_style_of_handler(self, shim: Cell) -> None:
        load(
            shim,
            """exports.main = (event, context) => styles[event.style](event, context);
const styles = {
  value: () => 1,
  promise: () => Promise.resolve(2),
  async: async () => { await null; return 3 },
  thenable: () => ({ then: (done) => setTimeout(done, 1, 4) }),
  falsy: () => 0,
};""",
        )
        styles = ("value", "promise", "async", "thenable", "falsy")
        assert [shim.call({"style": style}).json for style in styles] == [1, 2, 3, 4, 0]

    def test_callbacks(self, shim: Cell) -> None:
        load(
            shim,
            """exports.main = (event, context, callback) => {
  if (event.value) return 'returned';
  setTimeout(() => callback(event.fail ? new Error('by callback') : null, 'called back'), 1);
};""",
        )
        assert shim.call().json == "called back"
        assert shim.call({"value": 1}).json == "returned"
        assert shim.call({"fail": 1}).error["errorMessage"] == "by callback"

    def test_a_callback_that_comes_twice_counts_once(self, shim: Cell) -> None:
        load(
            shim,
            "exports.main = (event, c, done) => { done(null, event); done(null, 2); done(new Error()) }",
        )
        assert [shim.call(n).json for n in range(5)] == [0, 1, 2, 3, 4]

    def test_es_modules(self, shim: Cell) -> None:
        shim.write_file("lib.mjs", "export const name = await Promise.resolve('awaited');")
        shim.write_file("index.mjs", "import { name } from './lib.mjs'; export const main = () => name;")
        assert shim.load()["event"] == "loaded"
        assert shim.call().json == "awaited"

    def test_a_package_of_type_module(self, shim: Cell) -> None:
        shim.write_file("package.json", '{"type": "module"}')
        load(shim, "export default { main: () => import.meta.url.startsWith('file:') }")
        assert shim.call().json is True

    def test_a_directory_with_an_index(self, shim: Cell) -> None:
        shim.write_file("app/index.js", "exports.run = () => 'app'")
        assert shim.load(Order(handler="app.run"))["event"] == "loaded"
        assert shim.call().json == "app"

    def test_bare_names_resolve_in_the_functions_root(self, shim: Cell) -> None:
        shim.write_file("key.json", '{"key": 5}')
        shim.write_file("lib/deep.js", "module.exports = require('key.json').key")
        load(shim, "const deep = require('./lib/deep'); exports.main = () => deep")
        assert shim.call().json == 5

    def test_a_missing_package_is_told(self, shim: Cell) -> None:
        shim.write_file("index.js", "require('not-installed')")
        assert "Cannot find module 'not-installed'" in shim.load()["error"]["errorMessage"]

    def test_a_rejection_while_loading_is_told(self, shim: Cell) -> None:
        shim.write_file("index.mjs", "await Promise.reject(new Error('no database')); export const main = 1")
        assert shim.load()["error"]["errorMessage"] == "no database"

    @pytest.mark.parametrize(
        "how",
        [
            "Promise.reject(new Error('no database'))",
            "process.nextTick(() => { throw new Error('no database') })",
        ],
        ids=["rejection", "exception"],
    )
    def test_what_the_modules_throw_in_passing_is_a_failure_to_load(self, shim: Cell, how: str) -> None:
        shim.write_file("index.js", f"{how}; exports.main = () => 1")
        event = shim.load()
        assert event["event"] == "load_failed"
        assert event["error"]["errorMessage"] == "no database"
        assert shim.exit_code() == 1

    def test_the_time_that_remains(self, shim: Cell) -> None:
        load(
            shim, "exports.main = (e, context) => context.getRemainingTimeInMillis()", Order(timeout_ms=9000)
        )
        assert 0 < shim.call().json <= 9000

    def test_a_printed_context_shows_its_values(self, shim: Cell) -> None:
        load(shim, "exports.main = (e, context) => console.log(context)")
        shim.call(request_id="r-1")
        assert any("request_id: 'r-1'" in line.text for line in shim.logs(15))


class TestFailures:
    @pytest.mark.parametrize(
        "source",
        [
            "Promise.reject(new Error('nobody caught')); return new Promise(() => {})",
            "setTimeout(() => { throw new Error('nobody caught') }, 1); return new Promise(() => {})",
        ],
        ids=["rejection", "exception"],
    )
    def test_what_nobody_caught_is_the_calls_failure_and_the_end(self, shim: Cell, source: str) -> None:
        load(shim, f"exports.main = () => {{ {source} }}")
        reply = shim.call(request_id="r-1")
        assert (reply.status, reply.headers["x-cloudlet-error"]) == (400, "function_failed")
        assert reply.error["errorMessage"] == "nobody caught"
        assert "index.js" in reply.error["stackTrace"]
        assert reply.headers["x-cloudlet-final"] == "1"
        assert shim.activity[0] > 0, "the page tells when the process will be gone"
        assert shim.exit_code() == 1
        assert shim.logs(1)[0].request_id == "r-1"

    def test_with_concurrency_all_who_run_are_answered(self, shim: Cell) -> None:
        load(
            shim,
            "exports.main = (e) => { if (e.bad) setTimeout(() => { throw new Error('shared') }, 1);"
            " return new Promise(() => {}) }",
            Order(concurrency=3),
        )
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(contextlib.closing(shim.connect())) for _ in range(3)]
            connections[0].send({})
            connections[1].send({})
            shim.wait_until_started(2)
            connections[2].send({"bad": 1})
            assert [connection.reply().error["errorMessage"] for connection in connections] == ["shared"] * 3
        assert shim.exit_code() == 1

    def test_a_rejection_between_calls_ends_the_process(self, shim: Cell) -> None:
        load(shim, "exports.main = () => { setImmediate(() => Promise.reject(new Error('late'))); return 1 }")
        assert shim.call().json == 1
        assert shim.exit_code() == 1
        assert "late" in shim.logs(1)[0].text

    def test_results_that_are_not_json(self, shim: Cell) -> None:
        load(
            shim,
            """const results = {
  bigint: { n: 1n },
  hostile: { toJSON() { throw new Error('will not') } },
  function: () => 1,
  symbol: Symbol('s'),
  date: new Date(0),
  nan: NaN,
};
exports.main = (event) => results[event];""",
        )
        assert "BigInt" in shim.call("bigint").error["errorMessage"]
        assert shim.call("hostile").error["errorMessage"] == "function result is not JSON: will not"
        assert [shim.call(name).json for name in ("function", "symbol", "nan")] == [None, None, None]
        assert shim.call("date").json == "1970-01-01T00:00:00.000Z"

    def test_a_late_result_after_a_blocked_loop_is_a_timeout(self, shim: Cell) -> None:
        load(
            shim,
            """exports.main = async () => {
  const end = Date.now() + 60;
  while (Date.now() < end);
  await new Promise((done) => setTimeout(done, 1000));
};""",
            Order(timeout_ms=30),
        )
        assert shim.call().headers["x-cloudlet-error"] == "function_timeout"


class TestEnvironment:
    def test_a_function_may_replace_the_whole_object(self, shim: Cell) -> None:
        load(
            shim,
            "process.env = { ...process.env, MINE: '1' };"
            "exports.main = () => [process.env.MINE, process.env.WX_OPENID, process.env.TCB_ENV]",
        )
        assert shim.call(openid="o1").json == ["1", "o1", "env-1"]
        assert shim.call(openid="o2").json == ["1", "o2", "env-1"]

    def test_named_imports_are_the_same(self, shim: Cell) -> None:
        shim.write_file(
            "index.mjs",
            "import { env, exit } from 'node:process'; import { log } from 'node:console';"
            "export const main = (e) => { log('seen'); if (e.exit) exit(5); return env.WX_OPENID }",
        )
        assert shim.load()["event"] == "loaded"
        assert shim.call(openid="o1").json == "o1"
        assert shim.call({"exit": 1}, request_id="r-2").headers["x-cloudlet-error"] == "function_exited"
        assert shim.exit_code() == 5
        assert shim.logs(2)[1].request_id == "r-2"

    def test_it_looks_like_the_real_one(self, shim: Cell) -> None:
        load(
            shim,
            """exports.main = () => ({
  has: ['WX_OPENID' in process.env, 'WX_UNIONID' in process.env, 'PATH' in process.env],
  keys: Object.keys(process.env).filter((name) => name.startsWith('WX_')).sort(),
  own: [Object.hasOwn(process.env, 'WX_OPENID'), Object.hasOwn(process.env, 'WX_UNIONID')],
  text: String(process.env.NEW = 5) + typeof process.env.NEW,
  deleted: delete process.env.NEW && process.env.NEW === undefined,
});""",
        )
        assert shim.call(openid="o1").json == {
            "has": [True, False, True],
            "keys": ["WX_API_TOKEN", "WX_CONTEXT_KEYS", "WX_OPENID"],
            "own": [True, False],
            "text": "5string",
            "deleted": True,
        }

    def test_a_child_process_inherits_the_callers_identity(self, shim: Cell) -> None:
        load(
            shim,
            "exports.main = () => require('child_process').execSync('echo $WX_OPENID').toString().trim()",
        )
        assert shim.call(openid="o1").json == "o1"
        assert shim.call().json == ""

    def test_what_a_call_left_behind_sees_nobody(self, shim: Cell) -> None:
        load(
            shim,
            """let later = 'not yet';
exports.main = (event) => {
  if (event.ask) return later;
  setImmediate(() => { later = [process.env.WX_OPENID ?? null, process.env.TCB_ENV] });
  return null;
};""",
        )
        with contextlib.closing(shim.connect()) as connection:
            connection.call({}, openid="o1")
            assert connection.call({"ask": 1}, openid="o2").json == [None, "env-1"]

    def test_the_sdks_way_of_reading_the_caller(self, shim: Cell) -> None:
        """Every name of WX_CONTEXT_KEYS without its prefix, as the vendors' SDK documents it."""
        load(
            shim,
            """exports.main = () => Object.fromEntries(process.env.WX_CONTEXT_KEYS.split(',')
  .filter((name) => name !== 'WX_API_TOKEN').map((name) => [name.slice(3), process.env[name]]));""",
        )
        assert shim.call(openid="o1", appid="wx1").json == {"OPENID": "o1", "APPID": "wx1"}
        assert shim.call().json == {}


class TestOutput:
    def test_every_method_of_the_console(self, shim: Cell) -> None:
        load(
            shim,
            """const { log } = console;
exports.main = () => {
  log('%s is %d', 'six', 6);
  console.info({ a: [1] });
  console.debug('debug');
  console.warn('warn');
  console.error(new Error('shown'));
  console.group('group');
  console.log('inside');
  console.group();
  console.warn('deeper');
  console.groupEnd();
  console.groupEnd();
  console.table([{ a: 1 }]);
  console.dir({ b: 2 });
  console.assert(false, 'asserted');
  console.count('n');
  console.log();
  console.log('end');
};""",
        )
        shim.call(request_id="r-1")
        lines = shim.logs_until("end", "Assertion failed: asserted")
        seen = {line.text: line.level for line in lines}
        expected = {
            "six is 6": "info",
            "{ a: [ 1 ] }": "info",
            "debug": "debug",
            "warn": "warn",
            "Error: shown": "error",
            "group": "info",
            "  inside": "info",
            "    deeper": "warn",
            "{ b: 2 }": "info",
            "Assertion failed: asserted": "error",
            "n: 1": "info",
            "": "info",
        }
        assert {text: seen.get(text) for text in expected} == expected
        assert any("│" in text for text in seen)
        assert {line.request_id for line in lines} == {"r-1"}

    def test_a_stream_may_be_piped_to_stdout(self, shim: Cell) -> None:
        load(
            shim,
            """const { pipeline, Readable } = require('stream');
exports.main = () => new Promise((done) => {
  Readable.from(['a\\n', 'b', '\\nc\\n']).pipe(process.stdout).on('pipe', () => {});
  setTimeout(done, 5, 'piped');
});""",
        )
        assert shim.call(request_id="r-1").json == "piped"
        assert [line.text for line in shim.logs(3)] == ["a", "b", "c"]
        assert shim.call().json == "piped"
