"""Deploys functions: build, record, start check, move the alias, publish.

Calls move to a new version only after an instance of it has loaded; whatever goes wrong before that leaves
the former version serving, and one broken function does not stop the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

import structlog

from cloudlet.docdb.base import CreateIndex
from cloudlet.docdb.indexes.declared import declared_indexes
from cloudlet.model.clock import Clock
from cloudlet.model.errors import (
    AlreadyExists,
    FunctionLoadFailed,
    FunctionNotFound,
    Internal,
    InvalidName,
    PlatformError,
    VersionNotFound,
)
from cloudlet.model.function import Version, VersionKey
from cloudlet.model.ids import LATEST, check_collection_name
from cloudlet.state.base import ControlRecords

from .build import Builder, Staged
from .compare import changes
from .failures import split_failure
from .limits import BUILDS_AT_ONCE
from .ports import Collections, ControlClient
from .target import Target, choose_target
from .threads import in_thread
from .uploads import Uploads
from .versions import Rollback, rollback_target
from .wire import (
    Aborted,
    DeployEvent,
    DeployRequest,
    Done,
    FunctionDone,
    FunctionPlanned,
    FunctionUpload,
    Notice,
    Progress,
    Started,
)

EVENTS_WAITING_MAX = 256
"""A reader that does not keep up slows the deploy down instead of filling memory."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A function that is served now."""

    status: str
    version: Version


class Deployer:
    """The one place where versions are made and aliases move. One process (api) has one."""

    def __init__(
        self,
        records: ControlRecords,
        builder: Builder,
        uploads: Uploads,
        control: ControlClient,
        collections: Collections,
        clock: Clock,
    ) -> None:
        self._records = records
        self._builder = builder
        self._uploads = uploads
        self._control = control
        self._collections = collections
        self._clock = clock
        self._slots = asyncio.Semaphore(BUILDS_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def clean(self) -> None:
        """Remove what killed processes and deleted functions left. Once, before the first deploy."""
        found = await in_thread(self._builder.versions)
        known = {key for key in found if self._records.find_version(key) is not None}
        await in_thread(self._builder.clean, known)

    async def deploy(self, request: DeployRequest) -> AsyncIterator[DeployEvent]:
        """Deploy and tell what happens, in order; closing the iterator ends what is still running.

        Before the first event: EnvironmentNotFound or InvalidParameter, with nothing done. After it every
        failure is an event; the last one is Done or Aborted.
        """
        started = self._clock.monotonic()
        events: asyncio.Queue[DeployEvent | None] = asyncio.Queue(EVENTS_WAITING_MAX)
        work: asyncio.Task[None] | None = None
        try:
            target = choose_target(request, self._records)
            work = asyncio.create_task(self._run(request, target, events, started))
            self._running.add(work)
            work.add_done_callback(self._running.discard)
            yield Started(target.environment, tuple(function.name for function in request.functions))
            while (event := await events.get()) is not None:
                yield event
        finally:
            # Nothing is awaited before the uploads are gone: a reader that was cancelled is cancelled again
            # at every await. The task itself is kept until it has cleaned up.
            for function in request.functions:
                self._uploads.discard(function.upload)
            if work is not None:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def rollback(self, environment: str, function: str, number: int | None = None) -> Rollback:
        """Serve a version that exists, by default the one before; return once calls move to it.

        Like a deploy: its start check comes first, and what fails leaves the current version serving. Raise
        EnvironmentNotFound, FunctionNotFound, VersionNotFound, FunctionLoadFailed, Unavailable or
        EdgeUnavailable.
        """
        name = self._records.resolve_environment(environment).name
        async with self._lock(name, function):
            former = self._current(name, function)
            if former is None:
                raise FunctionNotFound(f"function {function[:80]!r} does not exist in environment {name!r}")
            version = rollback_target(self._records.versions(name, function), former, number)
            if version.key == former.key:
                # At once when the edge has it, which it may not after an earlier failure.
                await self._control.publish(self._records.sequence())
                return Rollback(former, former)
            if not self._builder.has(version.key):
                raise VersionNotFound(f"the code of version {version.number} is gone: deploy it again")
            await self._control.prepare(version)
            await self._publish(version, former)
        log.info("function_rolled_back", environment=name, function=function, digest=version.digest)
        return Rollback(former, version)

    async def delete(self, environment: str, function: str) -> list[str]:
        """Delete a function with all versions; return their digests once the edge has forgotten it.

        Raise EnvironmentNotFound, FunctionNotFound, or EdgeUnavailable (it is deleted then, and the edge
        follows when it answers again).
        """
        name = self._records.resolve_environment(environment).name
        async with self._lock(name, function):
            versions = await self._records.delete_function(name, function)
            try:
                await self._control.publish(self._records.sequence())
            finally:
                for version in versions:
                    await self._builder.forget(version.key)
        log.info("function_deleted", environment=name, function=function, versions=len(versions))
        return [version.digest for version in versions]

    async def _run(
        self,
        request: DeployRequest,
        target: Target,
        events: asyncio.Queue[DeployEvent | None],
        started: float,
    ) -> None:
        """Always ends the queue, unless cancelled (nobody reads it then)."""
        one = self._plan if request.dry_run else self._function
        try:
            await self._prepare_environment(request, target, events)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(one(target.environment, function, events))
                    for function in request.functions
                ]
            count = [task.result() for task in tasks].count
            seconds = self._clock.monotonic() - started
            done = Done(target.environment, count("deployed"), count("unchanged"), count("failed"), seconds)
            await events.put(done)
        except PlatformError as exc:
            await events.put(Aborted(exc.code, exc.message))
        except Exception:
            log.exception("deploy_failed", environment=target.environment)
            await events.put(Aborted(Internal.code, "something went wrong on our side; the log says what"))
        await events.put(None)

    async def _prepare_environment(
        self, request: DeployRequest, target: Target, events: asyncio.Queue[DeployEvent | None]
    ) -> None:
        for alias in () if request.dry_run else target.aliases:
            await self._records.set_environment_alias(alias, target.environment)
        for text in target.notices:
            await events.put(Notice(text))
        await self._check_collections(request, target.environment, events)
        for index in declared_indexes(request.database):
            text = await self._declare(target.environment, index, request)
            if text:
                await events.put(Notice(text))

    async def _declare(self, environment: str, index: CreateIndex, request: DeployRequest) -> str:
        """Make an index that the project declares, and its collection. Return what a person should know."""
        name = f"index {index.name} of {index.collection}"
        there = index.collection in await self._collections.names(environment)
        if there and index.name in await self._collections.indexes(environment, index.collection):
            return ""
        if request.dry_run:
            return f"{name} would be created"
        await self._create_collection(environment, index.collection)
        try:
            await self._collections.create_index(environment, index)
        except AlreadyExists:
            return ""
        except PlatformError as exc:
            # The functions do not depend on it: without an index everything is there, only slower.
            return f"{name} was not created: {exc.message}"
        return f"{name} created"

    async def _check_collections(
        self, request: DeployRequest, environment: str, events: asyncio.Queue[DeployEvent | None]
    ) -> None:
        present = await self._collections.names(environment)
        missing = [name for name in request.collections if name not in present and _may_exist(name)]
        if not missing:
            return
        names = ", ".join(missing)
        if request.create_collections and request.dry_run:
            await events.put(Notice(f"collections that would be created: {names}"))
            return
        if not request.create_collections:
            text = f"collections that do not exist: {names} (add --create-collections to create them)"
            await events.put(Notice(text))
            return
        for name in missing:
            await self._create_collection(environment, name)
        await events.put(Notice(f"collections created: {names}"))

    async def _create_collection(self, environment: str, name: str) -> None:
        try:
            await self._collections.create(environment, name)
        except AlreadyExists:
            # Somebody else was faster; it is there, which was the wish.
            log.info("collection_exists", environment=environment, collection=name)

    async def _function(
        self, environment: str, upload: FunctionUpload, events: asyncio.Queue[DeployEvent | None]
    ) -> str:
        """Deploy one function and report it; return the status. Only cancelling gets out of here."""
        async with self._slots, self._lock(environment, upload.name):
            started = self._clock.monotonic()
            for note in upload.notes:
                await events.put(Notice(note, upload.name))
            try:
                outcome = await self._deploy(environment, upload, events)
            except PlatformError as exc:
                log.warning(
                    "function_deploy_failed", environment=environment, function=upload.name, code=exc.code
                )
                done = self._failed(environment, upload.name, exc, started)
            except Exception:
                log.exception("function_deploy_failed", environment=environment, function=upload.name)
                done = self._failed(environment, upload.name, Internal(), started)
            else:
                done = self._deployed(upload.name, outcome, started)
            await events.put(done)
            return done.status

    async def _plan(
        self, environment: str, upload: FunctionUpload, events: asyncio.Queue[DeployEvent | None]
    ) -> str:
        """The dry run of one function: say what `_function` would do, and leave nothing."""
        async with self._slots:
            for note in upload.notes:
                await events.put(Notice(note, upload.name))
            try:
                planned = await self._planned(environment, upload)
            except PlatformError as exc:
                message, _ = split_failure(exc)
                planned = FunctionPlanned(upload.name, "failed", code=exc.code, message=message)
            except Exception:
                log.exception("function_plan_failed", environment=environment, function=upload.name)
                planned = FunctionPlanned(
                    upload.name, "failed", code=Internal.code, message=Internal().message
                )
            await events.put(planned)
            return planned.action if planned.action in {"unchanged", "failed"} else "deployed"

    async def _planned(self, environment: str, upload: FunctionUpload) -> FunctionPlanned:
        staged = await self._builder.stage(self._uploads.path(upload.upload), upload)
        await self._builder.discard(staged)
        key = VersionKey(environment, upload.name, staged.digest)
        former, known = self._current(environment, upload.name), self._records.find_version(key)
        number = known.number if known else 0
        if former is None:
            return FunctionPlanned(upload.name, "reuse" if known else "create", staged.digest, number)
        if former.key == key and self._builder.has(key):
            return FunctionPlanned(upload.name, "unchanged", staged.digest, number, former.number)
        found = changes(await in_thread(self._builder.source, former), staged.source)
        action: Literal["reuse", "update"] = "reuse" if known else "update"
        return FunctionPlanned(upload.name, action, staged.digest, number, former.number, found)

    async def _deploy(
        self, environment: str, upload: FunctionUpload, events: asyncio.Queue[DeployEvent | None]
    ) -> _Outcome:
        name = upload.name
        await events.put(Progress(name, "unpacking"))
        staged = await self._builder.stage(self._uploads.path(upload.upload), upload)
        key = VersionKey(environment, name, staged.digest)
        former = self._current(environment, name)
        if former is not None and former.key == key and self._builder.has(key):
            await self._builder.discard(staged)
            # At once when the edge has it, which it may not after an earlier failure.
            await self._control.publish(self._records.sequence())
            return _Outcome("unchanged", former)
        version, hints = await self._build(key, staged, events)
        await events.put(Progress(name, "checking"))
        await self._check(version, hints)
        await events.put(Progress(name, "publishing"))
        await self._publish(version, former)
        log.info("function_deployed", environment=environment, function=name, digest=version.digest)
        return _Outcome("deployed", version)

    async def _build(
        self, key: VersionKey, staged: Staged, events: asyncio.Queue[DeployEvent | None]
    ) -> tuple[Version, tuple[str, ...]]:
        if staged.plans:
            await events.put(Progress(key.function, "installing"))
        built = await self._builder.build(key, staged, self._clock.now())
        for note in built.notes:
            await events.put(Notice(note, key.function))
        config = staged.upload.config
        version = await self._records.add_version(key, config, str(built.code_dir), self._clock.now())
        return version, built.hints

    async def _check(self, version: Version, hints: tuple[str, ...]) -> None:
        """The start check, with what the build knows about a failure."""
        try:
            await self._control.prepare(version)
        except FunctionLoadFailed as exc:
            raise FunctionLoadFailed("\n".join((exc.message, *hints))) from exc

    async def _publish(self, version: Version, former: Version | None) -> None:
        """Move ``$LATEST``; when the edge does not take it, move it back so that both say the same."""
        await self._records.point_alias(version.key, LATEST, self._clock.now())
        try:
            await self._control.publish(self._records.sequence())
        except PlatformError:
            if former is not None:
                await self._records.point_alias(former.key, LATEST, self._clock.now())
            raise

    def _current(self, environment: str, function: str) -> Version | None:
        """The version that ``$LATEST`` names."""
        return self._records.find_function(environment, function)

    def _lock(self, environment: str, function: str) -> asyncio.Lock:
        """Deploys and deletes of one function happen one after the other."""
        key = (environment, function)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _deployed(self, name: str, outcome: _Outcome, started: float) -> FunctionDone:
        return FunctionDone(
            name,
            "unchanged" if outcome.status == "unchanged" else "deployed",
            self._clock.monotonic() - started,
            digest=outcome.version.digest,
            number=outcome.version.number,
        )

    def _failed(self, environment: str, name: str, error: PlatformError, started: float) -> FunctionDone:
        message, detail = split_failure(error)
        try:
            serving = self._current(environment, name)
        except PlatformError:
            serving = None
        return FunctionDone(
            name,
            "failed",
            self._clock.monotonic() - started,
            serving=serving.digest if serving else "",
            code=error.code,
            message=message,
            log=detail,
        )


def _may_exist(collection: str) -> bool:
    """Source code can look as if it named a collection that cannot be."""
    try:
        check_collection_name(collection)
    except InvalidName:
        return False
    return True
