"""Deploys with real builds (without dependencies) and twins of what lies outside this room."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from cloudlet.docdb.base import CreateIndex
from cloudlet.functions.archive import pack
from cloudlet.functions.build import Builder
from cloudlet.functions.deploy import Deployer
from cloudlet.functions.process import Command, CommandResult
from cloudlet.functions.toolchain import Toolchain
from cloudlet.functions.uploads import Uploads
from cloudlet.functions.wire import (
    Aborted,
    DeployEvent,
    DeployRequest,
    Done,
    FunctionDone,
    FunctionPlanned,
    FunctionUpload,
    Notice,
    Progress,
)
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import (
    AlreadyExists,
    DuplicateKey,
    EdgeUnavailable,
    EnvironmentNotFound,
    FunctionLoadFailed,
    FunctionNotFound,
    InvalidParameter,
    VersionNotFound,
)
from cloudlet.model.function import FunctionConfig, Version
from cloudlet.settings import Paths
from cloudlet.state.memory import MemoryRecords

pytestmark = pytest.mark.anyio


@dataclass
class Control:
    """Says yes, unless told otherwise, and remembers what it was asked."""

    broken: set[str] = field(default_factory=set)
    edge_down: bool = False
    prepared: list[Version] = field(default_factory=list)
    published: list[int] = field(default_factory=list)
    running: int = 0
    running_max: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event | None = None

    async def prepare(self, version: Version) -> None:
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        self.asked.set()
        try:
            if self.hold:
                await self.hold.wait()
            self.prepared.append(version)
            if version.function in self.broken:
                raise FunctionLoadFailed(
                    "/code/index.js:1\nboom(\n^\nReferenceError: boom is not defined\n    at x"
                )
        finally:
            self.running -= 1

    async def publish(self, sequence: int) -> None:
        if self.edge_down:
            raise EdgeUnavailable("the edge does not answer")
        self.published.append(sequence)


@dataclass
class Collections:
    """Names in a set."""

    present: set[str] = field(default_factory=set)
    made: list[CreateIndex] = field(default_factory=list)

    async def names(self, environment: str) -> frozenset[str]:
        return frozenset(self.present)

    async def create(self, environment: str, name: str) -> None:
        if name in self.present:
            raise AlreadyExists(name)
        self.present.add(name)

    async def indexes(self, environment: str, collection: str) -> frozenset[str]:
        return frozenset(index.name for index in self.made if index.collection == collection)

    async def create_index(self, environment: str, index: CreateIndex) -> None:
        if index.unique:
            raise DuplicateKey("two documents have the same email")
        self.made.append(index)


class Platform:
    """A deployer with everything around it."""

    def __init__(self, data: Path) -> None:
        self.paths = Paths(data)
        self.records = MemoryRecords()
        self.control = Control()
        self.collections = Collections()
        self.commands: list[Command] = []
        tools = Toolchain(Path("node"), Path("npm"), Path("python"), {"PATH": "/bin"})
        self.builder = Builder(self.paths, tools, self._run)
        self.uploads = Uploads(self.paths.cache / "uploads")
        self.deployer = Deployer(
            self.records, self.builder, self.uploads, self.control, self.collections, SystemClock()
        )

    async def upload(self, name: str, files: Mapping[str, str], **options: object) -> FunctionUpload:
        folder = self.paths.data / "project" / name
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        out = io.BytesIO()
        pack(folder, out)
        upload = await self.uploads.receive(chunks(out.getvalue()))
        return FunctionUpload(name, upload.id, FunctionConfig(), **options)  # type: ignore[arg-type]

    async def deploy(self, *functions: FunctionUpload, **options: object) -> list[DeployEvent]:
        request = DeployRequest(functions, **options)  # type: ignore[arg-type]
        return [event async for event in self.deployer.deploy(request)]

    def served(self, environment: str = "default") -> dict[str, str]:
        """Digest that callers get, by function."""
        return {version.function: alias.digest for version, alias in self.records.functions(environment)}

    async def _run(self, command: Command) -> CommandResult:
        """Stands for an installer: makes a module, fails when asked for what does not exist."""
        self.commands.append(command)
        if "nonexistent" in (command.cwd / "package.json").read_text():
            return CommandResult(1, "npm error code E404\nnpm error 404 Not Found - nonexistent")
        (command.cwd / "node_modules/dep").mkdir(parents=True)
        (command.cwd / "node_modules/dep/index.js").write_text("module.exports = 1")
        return CommandResult(0, "added 1 package")


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def done(events: list[DeployEvent]) -> dict[str, FunctionDone]:
    return {event.function: event for event in events if isinstance(event, FunctionDone)}


def notices(events: list[DeployEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path)


MAIN = {"index.js": "exports.main = () => 1"}
WITH_DEPENDENCY = {**MAIN, "package.json": '{"dependencies": {"dep": "1"}}'}


async def test_a_function_is_built_checked_and_served(platform: Platform) -> None:
    events = await platform.deploy(await platform.upload("login", MAIN))
    result = done(events)["login"]
    assert (result.status, result.number) == ("deployed", 1)
    assert platform.served() == {"login": result.digest}
    assert platform.control.published == [platform.records.sequence()]
    code = Path(platform.control.prepared[0].code_dir)
    assert (code / "index.js").read_text() == MAIN["index.js"]
    assert (code / "index.js").stat().st_mode & 0o777 == 0o444
    assert code == platform.paths.code / "default" / "login" / result.digest
    assert isinstance(events[-1], Done)
    assert list((platform.paths.cache / "uploads").iterdir()) == []
    assert list((platform.paths.code / ".staging").iterdir()) == []


async def test_nothing_happens_when_nothing_changed(platform: Platform) -> None:
    await platform.deploy(await platform.upload("f", WITH_DEPENDENCY))
    events = await platform.deploy(await platform.upload("f", WITH_DEPENDENCY))
    assert done(events)["f"].status == "unchanged"
    assert len(platform.commands) == 1
    assert len(platform.control.prepared) == 1


async def test_dependencies_are_installed_once_and_shared(platform: Platform) -> None:
    first = await platform.upload("a", {**WITH_DEPENDENCY, "index.js": "1"})
    second = await platform.upload("b", {**WITH_DEPENDENCY, "index.js": "2"})
    events = await platform.deploy(first, second)
    assert {result.status for result in done(events).values()} == {"deployed"}
    assert len(platform.commands) == 1
    a, b = (Path(v.code_dir) / "node_modules/dep/index.js" for v in platform.control.prepared)
    assert a.stat().st_ino == b.stat().st_ino


async def test_settings_make_a_new_version(platform: Platform) -> None:
    upload = await platform.upload("f", MAIN)
    await platform.deploy(upload)
    again = await platform.upload("f", MAIN, permissions=("wxacode.get",))
    assert done(await platform.deploy(again))["f"].number == 2


async def test_a_function_that_cannot_be_built_does_not_stop_the_others(platform: Platform) -> None:
    bad = await platform.upload("bad", {**MAIN, "package.json": '{"dependencies": {"nonexistent": "1"}}'})
    events = await platform.deploy(bad, await platform.upload("good", MAIN))
    results = done(events)
    assert results["good"].status == "deployed"
    assert results["bad"].status == "failed"
    assert results["bad"].code == "build_failed"
    assert "404 Not Found - nonexistent" in results["bad"].message
    assert "npm error code E404" in results["bad"].log
    assert isinstance(events[-1], Done)
    assert (events[-1].deployed, events[-1].failed) == (1, 1)
    assert list((platform.paths.cache / "deps").iterdir()) == []


async def test_a_version_that_does_not_start_leaves_the_former_serving(platform: Platform) -> None:
    good = done(await platform.deploy(await platform.upload("f", MAIN)))["f"].digest
    platform.control.broken.add("f")
    result = done(await platform.deploy(await platform.upload("f", {"index.js": "boom()"})))["f"]
    assert (result.status, result.code, result.serving) == ("failed", "function_load_failed", good)
    assert result.message == "the function cannot be loaded: ReferenceError: boom is not defined"
    assert "/code/index.js:1" in result.log
    assert platform.served() == {"f": good}


async def test_a_repaired_function_is_deployed(platform: Platform) -> None:
    platform.control.broken.add("f")
    await platform.deploy(await platform.upload("f", MAIN))
    platform.control.broken.clear()
    assert done(await platform.deploy(await platform.upload("f", MAIN)))["f"].status == "deployed"


async def test_when_the_edge_does_not_take_it_the_alias_goes_back(platform: Platform) -> None:
    good = done(await platform.deploy(await platform.upload("f", MAIN)))["f"].digest
    platform.control.edge_down = True
    result = done(await platform.deploy(await platform.upload("f", {"index.js": "2"})))["f"]
    assert (result.status, result.code) == ("failed", "edge_unavailable")
    assert platform.served() == {"f": good}


async def test_deploys_of_one_function_are_serialised(platform: Platform) -> None:
    platform.control.hold = asyncio.Event()
    uploads = [await platform.upload("f", {"index.js": str(number)}) for number in range(3)]
    tasks = [asyncio.create_task(platform.deploy(upload)) for upload in uploads]
    await platform.control.asked.wait()
    platform.control.hold.set()
    results = [done(await task)["f"] for task in tasks]
    assert platform.control.running_max == 1
    assert sorted(result.number for result in results) == [1, 2, 3]
    assert platform.served()["f"] in {result.digest for result in results}


async def test_a_reader_that_goes_away_ends_the_deploy(platform: Platform) -> None:
    platform.control.hold = asyncio.Event()
    request = DeployRequest((await platform.upload("f", MAIN),))
    events = platform.deployer.deploy(request)
    await anext(events)
    await platform.control.asked.wait()
    await events.aclose()  # type: ignore[attr-defined]
    assert platform.control.running == 0
    assert platform.served() == {}
    assert list((platform.paths.cache / "uploads").iterdir()) == []


async def test_a_reader_that_is_cancelled_leaves_no_upload(platform: Platform) -> None:
    platform.control.hold = asyncio.Event()
    upload = await platform.upload("f", MAIN)
    with anyio.CancelScope() as scope:
        async for event in platform.deployer.deploy(DeployRequest((upload,))):
            if isinstance(event, Progress) and event.step == "checking":
                scope.cancel()
    assert scope.cancelled_caught
    assert list((platform.paths.cache / "uploads").iterdir()) == []


async def test_unknown_upload(platform: Platform) -> None:
    for name in ("0" * 24, "../../etc/passwd"):
        events = await platform.deploy(FunctionUpload("f", name, FunctionConfig()))
        assert done(events)["f"].code == "invalid_parameter"


def declared(name: str, path: str, unique: bool = False) -> dict[str, Any]:
    keys = {"MgoIndexKeys": [{"Name": path, "Direction": "1"}], "MgoIsUnique": unique}
    return {"IndexName": name, "MgoKeySchema": keys}


async def test_declared_indexes_are_made_with_their_collections_once(platform: Platform) -> None:
    entry = {"collectionName": "users", "createIndexes": [declared("by_age", "age")]}
    database = {"database": {"collections": [entry]}}
    upload = await platform.upload("f", MAIN)
    assert notices(await platform.deploy(upload, database=database, dry_run=True)) == [
        "index by_age of users would be created"
    ]
    assert not platform.collections.present
    assert notices(await platform.deploy(upload, database=database)) == ["index by_age of users created"]
    assert [(index.collection, index.name) for index in platform.collections.made] == [("users", "by_age")]
    assert notices(await platform.deploy(await platform.upload("f", MAIN), database=database)) == []


async def test_an_index_that_cannot_be_made_stops_no_deploy(platform: Platform) -> None:
    entry = {"collectionName": "users", "createIndexes": [declared("by_email", "email", unique=True)]}
    events = await platform.deploy(
        await platform.upload("f", MAIN), database={"database": {"collections": [entry]}}
    )
    assert notices(events) == ["index by_email of users was not created: two documents have the same email"]
    assert isinstance(events[-1], Done)
    assert events[-1].deployed == 1


async def test_collections_that_are_missing_are_named_or_created(platform: Platform) -> None:
    platform.collections.present.add("users")
    names = ("dishes", "orders", "users", "__proto__")
    events = await platform.deploy(await platform.upload("f", MAIN), collections=names)
    assert notices(events) == [
        "collections that do not exist: dishes, orders (add --create-collections to create them)"
    ]
    upload = await platform.upload("f", MAIN)
    events = await platform.deploy(upload, collections=names, create_collections=True)
    assert notices(events) == ["collections created: dishes, orders"]
    assert platform.collections.present == {"users", "dishes", "orders"}


async def test_unknown_environment_ids_mean_the_only_environment(platform: Platform) -> None:
    upload = await platform.upload("f", MAIN)
    events = await platform.deploy(upload, project_env="prod-1", environment_ids=("test-2",))
    assert notices(events) == ["environment ids of the project now mean 'default': prod-1, test-2"]
    assert platform.records.resolve_environment("test-2").name == "default"
    assert notices(await platform.deploy(await platform.upload("f", MAIN), project_env="prod-1")) == []


async def test_with_several_environments_one_must_be_named(platform: Platform) -> None:
    await platform.records.create_environment("shop")
    upload = await platform.upload("f", MAIN)
    with pytest.raises(
        InvalidParameter, match=r"several environments \(default, shop\): name one with --env"
    ):
        await platform.deploy(upload, project_env="prod-1")
    events = await platform.deploy(await platform.upload("f", MAIN), env="shop", environment_ids=("prod-1",))
    assert "cloudlet env alias prod-1 shop" in notices(events)[0]
    assert platform.served("shop").keys() == {"f"}
    await platform.records.set_environment_alias("prod-1", "shop")
    await platform.deploy(await platform.upload("g", MAIN), environment_ids=("prod-1",))
    assert platform.served("shop").keys() == {"f", "g"}


async def test_unknown_environment(platform: Platform) -> None:
    upload = await platform.upload("f", MAIN)
    with pytest.raises(EnvironmentNotFound, match="cloudlet env create nope"):
        await platform.deploy(upload, env="nope")


async def test_a_fault_of_ours_is_told_without_details(platform: Platform) -> None:
    async def broken(environment: str) -> frozenset[str]:
        raise RuntimeError("secret detail")

    platform.collections.names = broken  # type: ignore[method-assign]
    last = (await platform.deploy(await platform.upload("f", MAIN)))[-1]
    assert isinstance(last, Aborted)
    assert (last.code, "secret" in last.message) == ("internal", False)


async def test_delete(platform: Platform) -> None:
    result = done(await platform.deploy(await platform.upload("f", MAIN)))["f"]
    assert await platform.deployer.delete("default", "f") == [result.digest]
    assert platform.served() == {}
    assert platform.control.published[-1] == platform.records.sequence()
    with pytest.raises(FunctionNotFound):
        await platform.deployer.delete("default", "f")
    again = done(await platform.deploy(await platform.upload("f", MAIN)))["f"]
    assert (again.status, again.digest) == ("deployed", result.digest)


async def test_what_a_killed_process_left_is_removed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = done(await platform.deploy(await platform.upload("f", WITH_DEPENDENCY)))["f"].digest
    for path in (
        platform.paths.code / ".staging/abc/index.js",
        platform.paths.cache / "deps/.abc/tree/x",
        platform.paths.cache / "deps/halfway/tree/x",
        platform.paths.code / "default/f/0123/index.js",
    ):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr("cloudlet.functions.build.ORPHAN_S", -1.0)
    await platform.deployer.clean()
    assert [path.name for path in (platform.paths.code / "default/f").iterdir() if path.is_dir()] == [kept]
    assert not (platform.paths.code / ".staging").exists()
    assert len(list((platform.paths.cache / "deps").iterdir())) == 1


async def test_the_cache_of_dependencies_is_bounded(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1", "2", "3"):
        files = {**MAIN, "package.json": f'{{"dependencies": {{"dep": "{version}"}}}}'}
        await platform.deploy(await platform.upload("f", files))
    monkeypatch.setattr("cloudlet.functions.layers.LAYERS_MAX", 1)
    await platform.deployer.clean()
    assert len(list((platform.paths.cache / "deps").iterdir())) == 1
    code = [Path(version.code_dir) for version in platform.control.prepared]
    assert all((directory / "node_modules/dep/index.js").is_file() for directory in code)


def planned(events: list[DeployEvent]) -> dict[str, FunctionPlanned]:
    return {event.function: event for event in events if isinstance(event, FunctionPlanned)}


async def test_a_dry_run_tells_what_would_be_done_and_leaves_nothing(platform: Platform) -> None:
    await platform.deploy(*[await platform.upload(name, MAIN) for name in ("same", "other")])
    before, served = platform.records.sequence(), platform.served()
    platform.control.prepared.clear()
    (platform.paths.data / "project/other/index.js").unlink()
    uploads = [
        await platform.upload("same", MAIN),
        await platform.upload("other", {"index.mjs": "1", "package.json": WITH_DEPENDENCY["package.json"]}),
        await platform.upload("fresh", MAIN, notes=("a note",)),
        await platform.upload("bad", {"index.js": "1", "package.json": "{"}),
    ]
    events = await platform.deploy(
        *uploads, dry_run=True, create_collections=True, collections=("c",), environment_ids=("prod-1",)
    )
    found = planned(events)
    assert {name: each.action for name, each in found.items()} == {
        "same": "unchanged",
        "other": "update",
        "fresh": "create",
        "bad": "failed",
    }
    assert found["other"].changes == ("+ index.mjs", "+ package.json", "- index.js", "dependencies")
    assert (found["same"].number, found["other"].serving) == (1, 1)
    assert found["bad"].message
    assert notices(events) == [
        "environment ids of the project would mean 'default': prod-1",
        "collections that would be created: c",
        "a note",
    ]
    assert isinstance(events[-1], Done)
    assert (events[-1].deployed, events[-1].unchanged, events[-1].failed) == (2, 1, 1)
    assert (platform.records.sequence(), platform.served()) == (before, served)
    assert (platform.control.prepared, platform.commands, platform.collections.present) == ([], [], set())
    assert list((platform.paths.code / ".staging").iterdir()) == []
    assert list((platform.paths.cache / "uploads").iterdir()) == []


async def test_a_dry_run_knows_versions_that_were_there_before(platform: Platform) -> None:
    for text in ("1", "2"):
        await platform.deploy(await platform.upload("f", {"index.js": text}))
    events = await platform.deploy(await platform.upload("f", {"index.js": "1"}), dry_run=True)
    assert planned(events)["f"].action == "reuse"
    assert (planned(events)["f"].number, planned(events)["f"].changes) == (1, ("~ index.js",))


async def versions_of(platform: Platform, *texts: str) -> list[str]:
    """Deploy these texts one after the other; return the digests."""
    return [
        done(await platform.deploy(await platform.upload("f", {"index.js": text})))["f"].digest
        for text in texts
    ]


async def test_a_rollback_checks_then_serves_the_version_before(platform: Platform) -> None:
    digests = await versions_of(platform, "1", "2", "3")
    platform.control.prepared.clear()
    result = await platform.deployer.rollback("default", "f")
    assert (result.former.number, result.now.number) == (3, 2)
    assert platform.served() == {"f": digests[1]}
    assert [version.number for version in platform.control.prepared] == [2]
    assert platform.control.published[-1] == platform.records.sequence()
    assert (await platform.deployer.rollback("default", "f")).now.number == 1
    assert (await platform.deployer.rollback("default", "f", 3)).now.number == 3
    sequence = platform.records.sequence()
    same = await platform.deployer.rollback("default", "f", 3)
    assert same.former == same.now and platform.records.sequence() == sequence


async def test_a_rollback_that_fails_leaves_what_is_served(platform: Platform) -> None:
    digests = await versions_of(platform, "1", "2")
    served = {"f": digests[1]}
    for function, number in (("f", 9), ("f", 0), ("nobody", None)):
        with pytest.raises((VersionNotFound, FunctionNotFound)):
            await platform.deployer.rollback("default", function, number)
    platform.control.broken.add("f")
    with pytest.raises(FunctionLoadFailed):
        await platform.deployer.rollback("default", "f")
    assert platform.served() == served
    platform.control.broken.clear()
    platform.control.edge_down = True
    with pytest.raises(EdgeUnavailable):
        await platform.deployer.rollback("default", "f")
    assert platform.served() == served
    platform.control.edge_down = False
    (platform.paths.code / "default/f" / f"{digests[0]}.json").unlink()
    with pytest.raises(VersionNotFound, match="deploy it again"):
        await platform.deployer.rollback("default", "f")
    assert platform.served() == served


async def test_a_rollback_waits_for_a_deploy_of_the_function(platform: Platform) -> None:
    await versions_of(platform, "1", "2")
    platform.control.hold = asyncio.Event()
    platform.control.asked.clear()
    upload = await platform.upload("f", {"index.js": "3"})
    deploy = asyncio.create_task(platform.deploy(upload))
    await platform.control.asked.wait()
    rollback = asyncio.create_task(platform.deployer.rollback("default", "f"))
    platform.control.hold.set()
    await deploy
    result = await rollback
    assert (result.former.number, result.now.number) == (3, 2)
    assert platform.control.running_max == 1
