"""Project trees as people have them, read as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cloudlet.functions.project import Project, read_project
from cloudlet.functions.wire import Trigger
from cloudlet.model.errors import InvalidProject
from cloudlet.model.function import Runtime

Tree = Callable[[Mapping[str, object]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files: text as it is, everything else as JSON."""

    def write(files: Mapping[str, object]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return tmp_path

    return write


def names(project: Project) -> list[str]:
    return [function.name for function in project.functions]


MAIN = "exports.main = async () => 1\n"


def test_wechat_project_with_trailing_slash_and_byte_order_mark(tree: Tree) -> None:
    root = tree(
        {
            "project.config.json": '\ufeff{"miniprogramRoot": "miniprogram/", "cloudfunctionRoot": "cloud/"}',
            "cloud/login/index.js": MAIN,
            "cloud/order/index.js": MAIN,
            "cloud/README/notes.txt": "x",
        }
    )
    project = read_project(root, {})
    assert project.kind == "wechat"
    assert names(project) == ["login", "order"]
    assert project.warnings == ("cloud/README: no code in this folder, skipped",)


def test_alipay_project(tree: Tree) -> None:
    root = tree(
        {
            "mini.project.json": {"format": 2, "cloudbaseRoot": "cloud", "cloud": {"env": "env-00a1b2"}},
            "cloud/functions/hello/index.js": MAIN,
        }
    )
    project = read_project(root, {})
    assert (project.kind, names(project), project.environment) == ("alipay", ["hello"], "env-00a1b2")


def test_cloudbase_project_with_template_and_defaults(tree: Tree) -> None:
    root = tree(
        {
            "cloudbaserc.json": '{"envId": "{{env.ENV_ID}}", "functionRoot": "./fns", "colour": 1,'
            '"functionDefaultConfig": {"memorySize": 512, "envVariables": {"A": "1", "B": "1"}},'
            '"functions": [{"name": "one", "timeout": {{env.T}}, "vpc": {},'
            '"envVariables": {"B": "{{ env.SECRET }}"}},'
            '{"name": "two", "dir": "elsewhere/two", "runtime": "Python3.9"}]}',
            ".env": "# comment\nENV_ID=prod-1a2b3c\nSECRET='from file'\nT=7\n",
            "fns/one/index.js": MAIN,
            "fns/other/index.js": MAIN,
            "elsewhere/two/index.py": "def main_handler(event, context): return 1\n",
        }
    )
    project = read_project(root, {"SECRET": 'say "hi"'})
    one, two = project.functions
    assert (project.kind, project.environment) == ("cloudbase", "prod-1a2b3c")
    assert one.settings.config.timeout_s == 7
    assert one.settings.config.memory_mb == 512
    assert one.settings.config.environment_variables == {"A": "1", "B": 'say "hi"'}
    assert two.directory == root / "elsewhere/two"
    assert (two.settings.config.runtime, two.settings.config.handler) == (
        Runtime.PYTHON3,
        "index.main_handler",
    )
    assert two.settings.config.timeout_s == 5
    assert project.warnings == (
        "cloudbaserc.json: colour has no effect here",
        "cloudbaserc.json functions[0] one: vpc has no effect here",
    )


def test_declared_indexes_are_kept_for_the_deploy_and_checked_here(tree: Tree) -> None:
    def cloudbaserc(direction: str) -> str:
        keys = {"MgoIndexKeys": [{"Name": "age", "Direction": direction}]}
        indexes = [{"IndexName": "by_age", "MgoKeySchema": keys}]
        collections = [{"collectionName": "users", "createIndexes": indexes}]
        functions = [{"name": "one"}]
        return json.dumps(
            {"functions": functions, "functionRoot": "f", "database": {"collections": collections}}
        )

    root = tree({"cloudbaserc.json": cloudbaserc("1"), "f/one/index.js": MAIN})
    project = read_project(root, {})
    assert project.database["database"]["collections"][0]["collectionName"] == "users"
    assert project.warnings == ()
    root = tree({"cloudbaserc.json": cloudbaserc("up"), "f/one/index.js": MAIN})
    with pytest.raises(InvalidProject, match="createIndexes"):
        read_project(root, {})


def test_cloudbaserc_beside_a_wechat_project_adds_settings(tree: Tree) -> None:
    root = tree(
        {
            "project.config.json": {"cloudfunctionRoot": "cloudfunctions"},
            "cloudbaserc.json": {
                "functionRoot": "cloudfunctions",
                "functions": [{"name": "a", "timeout": 20}],
            },
            "cloudfunctions/a/index.js": MAIN,
            "cloudfunctions/a/config.json": {"timeout": 10, "memorySize": 128},
            "cloudfunctions/b/index.js": MAIN,
        }
    )
    project = read_project(root, {})
    assert (project.kind, names(project)) == ("wechat", ["a", "b"])
    assert project.functions[0].settings.config.timeout_s == 20
    assert project.functions[0].settings.config.memory_mb == 128


@pytest.mark.parametrize("where", ["", "cloudfunctions/", "functions/", "cloud/functions/"])
def test_a_folder_of_functions_is_enough(tree: Tree, where: str) -> None:
    root = tree({f"{where}a/index.js": MAIN, f"{where}b/index.py": "x = 1\n", "docs/x.js": "x"})
    project = read_project(root, {})
    assert (project.kind, names(project)) == ("folder", ["a", "b"])
    assert [f.settings.config.runtime for f in project.functions] == [Runtime.NODE24, Runtime.PYTHON3]


def test_a_single_function_folder(tree: Tree) -> None:
    root = tree({"hello/index.js": MAIN, "hello/lib/util.js": "x"})
    assert names(read_project(root / "hello", {})) == ["hello"]


def test_config_json_of_a_function(tree: Tree) -> None:
    root = tree(
        {
            "f/index.js": MAIN,
            "f/config.json": {
                "timeout": "20",
                "envVariables": {"N": 5, "ON": True},
                "triggers": [{"name": "nightly", "type": "timer", "config": "0 0 2 * * * *"}],
                "permissions": {"openapi": ["wxacode.get"]},
                "cloudlet": {"concurrency": 4, "instancesMin": 1, "scripts": True, "bogus": 1},
            },
        }
    )
    project = read_project(root, {})
    settings = project.functions[0].settings
    assert settings.config.timeout_s == 20
    assert settings.config.environment_variables == {"N": "5", "ON": "true"}
    assert settings.triggers == (Trigger("nightly", "timer", "0 0 2 * * * *"),)
    assert settings.notes == ("triggers are kept with the version but do not run yet: nightly",)
    assert settings.permissions == ("wxacode.get",)
    assert (settings.config.concurrency, settings.config.scale.instances_min, settings.scripts) == (
        4,
        1,
        True,
    )
    assert "f/config.json: cloudlet.bogus is not known and was ignored" in project.warnings


@pytest.mark.parametrize(
    ("asked", "runtime", "notes"),
    [
        ("Nodejs8.9", Runtime.NODE20, ["Nodejs8.9 is served by Node.js 20", "Node.js 20 gets no security"]),
        (
            "Nodejs16.13",
            Runtime.NODE20,
            ["Nodejs16.13 is served by Node.js 20", "Node.js 20 gets no security"],
        ),
        ("Nodejs20.19", Runtime.NODE20, ["Node.js 20 gets no security"]),
        ("node20", Runtime.NODE20, ["Node.js 20 gets no security"]),
        ("Nodejs22", Runtime.NODE22, ["Node.js 22 gets no security"]),
        ("nodejs24", Runtime.NODE24, []),
        ("node24", Runtime.NODE24, []),
        ("Nodejs26.1", Runtime.NODE24, ["Nodejs26.1 is served by Node.js 24"]),
    ],
)
def test_runtimes_map_to_the_nearest(tree: Tree, asked: str, runtime: Runtime, notes: list[str]) -> None:
    root = tree({"f/index.js": MAIN, "f/config.json": {"runtime": asked}})
    settings = read_project(root, {}).functions[0].settings
    assert settings.config.runtime is runtime
    said = "; ".join(settings.notes)
    assert all(note in said for note in notes) and bool(said) is bool(notes)


@pytest.mark.parametrize(("asked", "noted"), [("Python3.7", True), ("Python3", False), ("Python3.11", False)])
def test_an_older_python_is_served_with_a_note(tree: Tree, asked: str, noted: bool) -> None:
    root = tree({"f/index.py": "def main_handler(event, context): ...", "f/config.json": {"runtime": asked}})
    settings = read_project(root, {}).functions[0].settings
    assert settings.config.runtime is Runtime.PYTHON3
    assert settings.notes == (
        (f"runtime {asked} is served by Python 3.11 or newer, the nearest there is",) if noted else ()
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"timeout": "abc"}', "f/config.json: timeout must be a number, not 'abc'"),
        ('{"timeout": 100000}', "f/config.json: timeout is 100000, use 0.1 to 900 seconds"),
        ('{"timeout": true}', "timeout must be a number, not True"),
        ('{"memorySize": 1}', "memorySize is 1, use 64 to 3072 MB"),
        ('{"memorySize": 128.5}', "memorySize must be a whole number"),
        ('{"handler": "../x.main"}', "write FILE.EXPORT"),
        ('{"handler": "app.main"}', "f: app.js is missing (handler app.main)"),
        ('{"runtime": "Php7.4"}', "runtime Php7.4 is not supported"),
        ('{"runtime": "Java11"}', "runtime Java11 is not supported"),
        ('{"runtime": "Golang1"}', "runtime Golang1 is not supported"),
        ('{"runtime": "Python2.7"}', "port the function to Python 3"),
        ('{"runtime": "cobol"}', "runtime 'cobol' is not known"),
        ('{"type": "HTTP"}', "HTTP functions are not supported yet"),
        ('{"envVariables": {"A-B": "1"}}', "environment variable 'A-B' is not allowed"),
        ('{"envVariables": {"A": "%s"}}' % ("x" * 5000), "the limit is 4096"),
        ('{"envVariables": []}', "envVariables must be an object"),
        ('{"triggers": [{"name": "t", "type": "timer", "config": "0 0 * * *"}]}', "a timer has 7 fields"),
        ('{"cloudlet": {"instancesMin": 5, "instancesMax": 2}}', "instancesMin is 5, use 0 to 2"),
        ('{\n"timeout": 1,\n"x" 2}', "f/config.json line 3: not valid JSON"),
        ("[1]", "the file must hold a JSON object"),
    ],
)
def test_a_broken_function_does_not_hide_the_others(tree: Tree, config: str, message: str) -> None:
    root = tree({"f/index.js": MAIN, "f/config.json": config, "good/index.js": MAIN})
    project = read_project(root, {})
    assert names(project) == ["good"]
    assert [broken.name for broken in project.broken] == ["f"]
    assert message in project.broken[0].error.message


@pytest.mark.parametrize("name", ["__proto__", "1st", "a b", "x" * 61])
def test_names_that_are_not_allowed(tree: Tree, name: str) -> None:
    project = read_project(tree({f"{name}/index.js": MAIN}), {})
    assert "is not allowed" in project.broken[0].error.message


def test_function_without_entry_file(tree: Tree) -> None:
    files = {"cloudfunctionRoot": "c"}
    root = tree(
        {"project.config.json": files, "c/f/package.json": {}, "c/g/index.ts": "export const main = 1"}
    )
    messages = [broken.error.message for broken in read_project(root, {}).broken]
    assert messages == [
        "c/f: index.js is missing (handler index.main)",
        "c/g: index.js is missing: compile index.ts first (handler index.main)",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.md": "nothing"}, "no functions found"),
        (
            {"project.config.json": {"cloudfunctionRoot": "nope/"}},
            "names 'nope/', but there is no such folder",
        ),
        ({"project.config.json": {"cloudfunctionRoot": "../x"}}, "outside the project"),
        ({"project.config.json": "{\n  oops\n}"}, "project.config.json line 2: not valid JSON"),
        ({"cloudbaserc.json": '{"envId": "{{env.NOPE}}"}'}, "NOPE is used as {{env.X}}"),
        ({"cloudbaserc.json": {"functions": {}}}, "functions must be a list"),
        ({"cloudbaserc.json": {"functions": [{"timeout": 1}]}}, "each function is an object with a name"),
    ],
)
def test_projects_that_cannot_be_read(tree: Tree, files: Mapping[str, object], message: str) -> None:
    with pytest.raises(InvalidProject) as caught:
        read_project(tree(files), {})
    assert message in caught.value.message


def test_listed_function_without_folder(tree: Tree) -> None:
    project = read_project(tree({"cloudbaserc.json": {"functions": [{"name": "gone"}]}}), {})
    assert "functions/gone: no such folder" in project.broken[0].error.message


def test_comments_and_trailing_commas_are_read_with_a_warning(tree: Tree) -> None:
    text = '{ // where\n "cloudfunctionRoot": "c", /* "x" */ "url": "http://a//b", }'
    project = read_project(tree({"project.config.json": text, "c/f/index.js": MAIN}), {})
    assert names(project) == ["f"]
    assert "comments or trailing commas" in project.warnings[0]


def test_names_in_the_code(tree: Tree) -> None:
    root = tree(
        {
            "project.config.json": {"cloudfunctionRoot": "c", "miniprogramRoot": "mini"},
            "c/f/index.js": "const cloud = require('wx-server-sdk')\n"
            "cloud.init({ env: 'prod-1a2b3c' }) // env: 'comment-12345'\n"
            "const TABLE = 'dishes'\n/* db.collection('old') */\n"
            "db.collection('orders').get(); db.collection(TABLE);\n"
            "db.createCollection('made'); db.collection('made')\n",
            "c/g/index.py": "body = {'collectionName': 'reports'}  # collection('no')\n",
            "c/f/node_modules/x/index.js": "db.collection('dependency')",
            "mini/app.js": "wx.cloud.init({\n  // env: 'my-env-id1',\n  traceUser: true })\n"
            "App({ globalData: { env: 'test-9f8e7d6c5b', mode: 'x' } })\n"
            "wx.cloud.database().collection(`carts`)",
        }
    )
    found = read_project(root, {}).names
    assert found.environment_ids == ("prod-1a2b3c", "test-9f8e7d6c5b")
    assert found.collections == ("carts", "dishes", "orders", "reports")
