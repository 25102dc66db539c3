"""Putting a state of the functions into effect at the edge, in an order that loses no call.

Clusters, then their endpoints, then the routes that use them; what is no longer used goes last. "Published"
means that Envoy has said so, never that a file was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from cloudlet.model.errors import EdgeUnavailable, PlatformError, ShuttingDown
from cloudlet.model.function import VersionKey

from .admin import AdminClient
from .bans import ban_filter
from .bootstrap import Candidate
from .endpoints import ACK_LIMIT_S, EndpointStream
from .fragments import Fragments
from .installer import Installer
from .keys import PublicKey, session_filter
from .options import EdgeOptions
from .structure import EdgeModel, cluster_name, clusters, version_of
from .validate import validate

WAITING_MAX = 10_000
"""Callers that wait for a publication at the same time."""
RETRY_S = 0.2
RETRY_S_MAX = 30.0

_STATS = r"^cluster\.v/[^.]*\.upstream_rq_(total|active|retry|time)$"

LINGER_S = 1.0
"""A cluster stays this long after the last route to it: longer than a call can wait before it is refused."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class VersionStats:
    """What the edge measured of one early-bound version since the edge started."""

    rq_total: int = 0
    """Tries, so a refused call counts twice."""
    rq_active: int = 0
    retries: int = 0
    """Refused by a busy instance and given to the activator."""
    rq_time_p95_ms: float | None = None
    """Of the last interval of 5 s; None when nothing was called in it."""


class Publisher:
    """The only writer of the edge's files and endpoints.

    Calls may overlap: models published meanwhile are put together and only the newest is put into effect, yet
    each caller waits until a state that includes its change is. Every method raises EdgeUnavailable when the
    edge refuses or does not confirm in time; the edge then serves what it served before.
    """

    def __init__(
        self, options: EdgeOptions, *, limit_s: float = 10.0, ack_limit_s: float = ACK_LIMIT_S
    ) -> None:
        self._options = options
        self._ack_limit_s = ack_limit_s
        self._admin = AdminClient(options.files.admin_socket)
        self._installer = Installer(options.files, self._admin, limit_s)
        self._endpoints = EndpointStream(options.xds_socket, options.activator_socket)
        self._fragments = Fragments()
        self._wanted: EdgeModel | None = None
        self._named: tuple[EdgeModel, frozenset[str]] | None = None
        """A model that was wanted, and the names of the clusters that its functions may have."""
        self._live = frozenset[VersionKey]()
        """Versions that have a cluster in Envoy, as far as is known (more rather than fewer)."""
        self._fresh = True
        """True until the clusters were written once: their form may stem from an earlier release."""
        self._left: dict[VersionKey, float] = {}
        """Since when (loop time) the routes do not use a cluster of `_live` any more."""
        self._waiting: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve the endpoint stream and take publications. Envoy need not run yet.

        An Envoy that runs already keeps its routes and instances until something else is published.
        """
        self._live = await asyncio.to_thread(_live_versions, self._options.files.clusters)
        await self._endpoints.start()
        self._worker = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; callers that wait get ShuttingDown. The edge goes on with what it has."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
            self._worker = None
        self._finish(self._taken(), ShuttingDown())
        await self._endpoints.close()
        await self._admin.close()

    async def publish(self, model: EdgeModel) -> None:
        """Return when calls go where `model` says.

        An early-bound version about whose instances nobody has told yet (`set_endpoints`) is late-bound
        until then, so that a restarted control process takes nothing away from the edge by not knowing.
        """
        self.want(model)
        await self.settle()

    def want(self, model: EdgeModel) -> None:
        """The first half of `publish`: `settle` must follow, after which calls go where the newest wanted
        model says."""
        self._wanted = model

    async def settle(self) -> None:
        """The second half of `publish`."""
        await self._next_round()

    async def set_endpoints(self, version: VersionKey, sockets: Sequence[str]) -> None:
        """These instances take the version's calls; none = all of them go to the activator.

        Returns when the edge has acknowledged it (at once if the version has no cluster there): from then on
        an instance that was left out gets no new call.
        """
        name = cluster_name(version)
        first = not self._endpoints.knows(name)
        self._endpoints.tell(name, sockets)
        if first and self._wanted is not None and version in self._wanted.early:
            # It waited for this news; the round confirms its endpoints before routes lead to them.
            await self._next_round()
        elif version in self._live:
            try:
                await self._endpoints.acknowledged([name], self._ack_limit_s)
            except EdgeUnavailable:
                # A publication of that time may have taken the cluster away: then nothing is left to confirm.
                if version in self._live:
                    raise
        else:
            self._forget_gone()

    async def set_keys(self, keys: Sequence[PublicKey]) -> None:
        """Tokens of exactly these keys are valid from now on. Also raises InvalidParameter."""
        await self._installer.install(self._installer.keys, [session_filter(keys)])

    async def set_bans(self, sessions: Collection[str]) -> None:
        """Exactly these sessions are refused from now on. Also raises LimitExceeded."""
        resource = await asyncio.to_thread(ban_filter, sessions)
        await self._installer.install(self._installer.bans, [resource])

    async def stats(self) -> Mapping[VersionKey, VersionStats]:
        """Early-bound versions that were called, by what the edge counted."""
        return _by_version(await self._admin.stats(_STATS))

    async def _next_round(self) -> None:
        """Wait for a round of the worker that begins after this moment."""
        if self._worker is None or self._worker.done():
            raise ShuttingDown()
        if len(self._waiting) >= WAITING_MAX:
            raise EdgeUnavailable(f"{WAITING_MAX} publications are waiting for the edge")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._work.set()
        await done

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wait_for_work(failures)
            waiting = self._taken()
            failures += 1
            try:
                if self._wanted is not None:
                    await self._put_into_effect(self._wanted)
            except PlatformError as exc:
                log.warning("edge_publish_failed", error=exc.message)
                self._finish(waiting, exc)
            except asyncio.CancelledError:
                self._finish(waiting, ShuttingDown())
                raise
            except Exception as exc:
                log.exception("edge_publish_failed")
                self._finish(waiting, EdgeUnavailable(f"publishing to the edge failed: {exc}"))
            else:
                failures = 0
                self._finish(waiting, None)

    async def _wait_for_work(self, failures: int) -> None:
        """Until somebody publishes; after a failure also until the next try (Envoy may have been away)."""
        pause_s = min(RETRY_S_MAX, RETRY_S * 2.0 ** min(failures, 10)) if failures else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._work.wait()
        self._work.clear()

    def _taken(self) -> list[asyncio.Future[None]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _finish(self, waiting: Iterable[asyncio.Future[None]], error: PlatformError | None) -> None:
        for future in waiting:
            if future.done():
                continue  # its caller was cancelled
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    async def _put_into_effect(self, wanted: EdgeModel) -> None:
        model = wanted.with_early(key for key in wanted.early if self._endpoints.knows(cluster_name(key)))
        after = model.early
        # Those that leave stay until the routes have changed and calls on their way have ended: a call that
        # an instance refuses now is tried again in the same cluster.
        self._live = after | self._lingering(after)
        await self._install_clusters(self._live)
        if self._fresh:
            self._endpoints.tell_again([cluster_name(key) for key in self._live])
            self._fresh = False
        names = [cluster_name(key) for key in sorted(after)]
        await self._endpoints.acknowledged(names, self._ack_limit_s)
        routes = await asyncio.to_thread(self._fragments.route_configuration, model)
        try:
            await self._installer.install(self._installer.routes, [routes])
        except EdgeUnavailable as exc:
            raise await self._explained(exc, model, routes) from exc
        self._let_linger(after)
        self._named = wanted, await asyncio.to_thread(_cluster_names, wanted)
        self._forget_gone()

    def _lingering(self, after: frozenset[VersionKey]) -> frozenset[VersionKey]:
        """Clusters that routes use no longer, or from this round on, and that have to stay for now."""
        now = asyncio.get_running_loop().time()
        return frozenset(key for key in self._live - after if self._left.get(key, now) + LINGER_S > now)

    def _let_linger(self, after: frozenset[VersionKey]) -> None:
        """The routes use `after` now: note since when the others are unused, and come back for them."""
        loop = asyncio.get_running_loop()
        self._left = {key: self._left.get(key, loop.time()) for key in self._live - after}
        if self._left:
            loop.call_later(LINGER_S, self._work.set)

    async def _install_clusters(self, live: Collection[VersionKey]) -> None:
        rendered = await asyncio.to_thread(clusters, live)
        await self._installer.install(self._installer.clusters, rendered)

    def _forget_gone(self) -> None:
        """Versions without a function, a cluster and instances: nothing has to be said about them."""
        if self._named is None or self._named[0] is not self._wanted:
            return  # the round that is to come, or to be repeated, does it
        live = {cluster_name(key) for key in self._live}
        self._endpoints.forget(self._endpoints.empty() - self._named[1] - live)

    async def _explained(
        self, error: EdgeUnavailable, model: EdgeModel, routes: Mapping[str, Any]
    ) -> EdgeUnavailable:
        """The refusal with Envoy's reason, which is nowhere else but in its log."""
        candidate = Candidate(
            clusters=tuple(clusters(model.early)),
            routes=routes,
            keys=session_filter([PublicKey.unusable()]),
            bans=ban_filter(()),
        )
        try:
            await validate(self._options, candidate)
        except EdgeUnavailable as reason:
            return EdgeUnavailable(f"{error.message}: {reason.message}")
        return error


def _cluster_names(model: EdgeModel) -> frozenset[str]:
    return frozenset(cluster_name(function.key) for function in model.functions)


def _live_versions(path: Path) -> frozenset[VersionKey]:
    """Versions that the clusters on disk name: what a running Envoy may have from an earlier publisher."""
    try:
        resources = json.loads(path.read_text(encoding="utf-8"))["resources"]
        versions = (version_of(resource["name"]) for resource in resources)
        return frozenset(version for version in versions if version is not None)
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError) as exc:
        raise EdgeUnavailable(f"{path} is not a cluster file of this platform: {exc}") from exc


def _by_version(values: Mapping[str, Any]) -> dict[VersionKey, VersionStats]:
    fields: dict[VersionKey, dict[str, Any]] = {}
    for name, value in values.items():
        _, cluster, statistic = name.split(".")
        version = version_of(cluster)
        if version is not None:
            fields.setdefault(version, {})[statistic] = value
    return {
        version: VersionStats(
            rq_total=read.get("upstream_rq_total", 0),
            rq_active=read.get("upstream_rq_active", 0),
            retries=read.get("upstream_rq_retry", 0),
            rq_time_p95_ms=read.get("upstream_rq_time", {}).get(95),
        )
        for version, read in fields.items()
    }
