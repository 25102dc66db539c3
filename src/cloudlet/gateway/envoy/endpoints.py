"""Instances for the edge: a delta-ADS server on a unix socket.

Priority 0 of a cluster are its instances, priority 1 is the activator, so a call that finds no instance
goes there by itself. Nothing is said about a cluster before somebody told: after a restart of this process
the edge keeps what it has until the nodes have reported.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from pathlib import Path

import grpc
import grpc.aio
import structlog
from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from cloudlet.model.errors import EdgeUnavailable

from .subscription import Assignment, Push, Subscription

ENDPOINTS_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
ACK_LIMIT_S = 5.0
INSTANCES_MAX = 10_000
"""Sockets of one cluster."""

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

log = structlog.get_logger(__name__)


class EndpointStream:
    """The truth about instances, as far as edges have to know it.

    `tell` and `forget` may be called at any time, also before `start`. Times out into EdgeUnavailable.
    """

    def __init__(self, socket: Path, activator_socket: Path) -> None:
        self._socket = socket
        self._activator = str(activator_socket)
        self._told: dict[str, Assignment] = {}
        self._revision = 0
        self._edges: dict[Subscription, asyncio.Event] = {}
        self._progress = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raise EdgeUnavailable when the socket cannot be bound."""
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        methods = {"DeltaAggregatedResources": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
        try:
            server.add_insecure_port(f"unix:{self._socket}")
        except RuntimeError as exc:
            raise EdgeUnavailable(f"cannot listen on {self._socket}") from exc
        await server.start()
        self._server = server

    async def close(self) -> None:
        """End every stream. Edges keep what they have."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def knows(self, cluster: str) -> bool:
        """Whether somebody told about this cluster."""
        return cluster in self._told

    def empty(self) -> frozenset[str]:
        """The clusters that were told to have no instances."""
        return frozenset(name for name, assignment in self._told.items() if not assignment.sockets)

    def tell(self, cluster: str, sockets: Sequence[str]) -> None:
        """These are the instances of the cluster from now on; none = an explicit empty priority 0."""
        if len(sockets) > INSTANCES_MAX:
            raise EdgeUnavailable(f"{len(sockets)} instances of one version, the limit is {INSTANCES_MAX}")
        self._revision += 1
        self._told[cluster] = Assignment(self._revision, tuple(sockets))
        self._wake()

    def forget(self, clusters: Iterable[str]) -> None:
        """Say nothing more about these; for clusters that no longer exist."""
        for cluster in clusters:
            self._told.pop(cluster, None)
        self._progress.set()

    def tell_again(self, clusters: Collection[str]) -> None:
        """Send these once more: an edge that replaced a cluster waits for its endpoints without asking."""
        for edge in self._edges:
            edge.again(clusters)
        self._wake()

    async def acknowledged(self, clusters: Collection[str], limit_s: float = ACK_LIMIT_S) -> None:
        """Return once every connected edge uses what was told last about these clusters, or something later.

        Raise EdgeUnavailable when no edge is connected, or one refused or did not answer within `limit_s`.
        """
        wanted = {name: self._told[name].revision for name in clusters if name in self._told}
        try:
            async with asyncio.timeout(limit_s):
                while not self._all_hold(wanted):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError as exc:
            state = "did not acknowledge" if self._edges else "is not connected and cannot acknowledge"
            raise EdgeUnavailable(f"the edge {state} {_names(wanted)} within {limit_s:g} s") from exc

    def _all_hold(self, everything: dict[str, int]) -> bool:
        # What was forgotten meanwhile has no cluster any more: there is nothing left to wait for.
        wanted = {name: revision for name, revision in everything.items() if name in self._told}
        if not wanted:
            return True
        for name, revision in wanted.items():
            for edge in self._edges:
                refused = edge.rejected.get(name)
                if refused is not None and refused[0] >= revision:
                    raise EdgeUnavailable(f"the edge refused the endpoints of {name}: {refused[1]}")
        return bool(self._edges) and all(
            edge.greeted and edge.holds(name, revision)
            for name, revision in wanted.items()
            for edge in self._edges
        )

    def _wake(self) -> None:
        for event in self._edges.values():
            event.set()

    async def _serve(
        self,
        requests: AsyncIterator[discovery_pb2.DeltaDiscoveryRequest],
        context: grpc.aio.ServicerContext[
            discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse
        ],
    ) -> None:
        edge, event = Subscription(), asyncio.Event()
        self._edges[edge] = event
        writer = asyncio.create_task(self._write(edge, event, context))
        log.info("edge_connected", edges=len(self._edges))
        try:
            async for request in requests:
                self._on_request(edge, request)
                event.set()
        finally:
            del self._edges[edge]
            self._progress.set()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            log.info("edge_disconnected", edges=len(self._edges))

    def _on_request(self, edge: Subscription, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if request.type_url != ENDPOINTS_TYPE:
            return  # only endpoints come from here; other types have files
        error = request.error_detail.message if request.HasField("error_detail") else ""
        if error:
            log.error("endpoints_refused", error=error)
        edge.on_request(
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
            request.response_nonce,
            error,
        )
        self._progress.set()

    async def _write(
        self,
        edge: Subscription,
        event: asyncio.Event,
        context: grpc.aio.ServicerContext[
            discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse
        ],
    ) -> None:
        while True:
            await event.wait()
            event.clear()
            push = edge.next_push(self._told)
            if push is not None:
                await context.write(self._message(push))

    def _message(self, push: Push) -> discovery_pb2.DeltaDiscoveryResponse:
        resources = [
            discovery_pb2.Resource(
                name=name, version=str(assignment.revision), resource=self._load_assignment(name, assignment)
            )
            for name, assignment in push.assignments.items()
        ]
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=ENDPOINTS_TYPE, nonce=push.nonce, resources=resources
        )

    def _load_assignment(self, name: str, assignment: Assignment) -> any_pb2.Any:
        priorities = (assignment.sockets, (self._activator,))
        message = endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    priority=priority, lb_endpoints=[_endpoint(socket) for socket in sockets]
                )
                for priority, sockets in enumerate(priorities)
            ],
        )
        packed = any_pb2.Any()
        packed.Pack(message)
        return packed


def _endpoint(socket: str) -> endpoint_components_pb2.LbEndpoint:
    address = address_pb2.Address(pipe=address_pb2.Pipe(path=socket))
    return endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=address))


def _names(wanted: Collection[str]) -> str:
    shown = sorted(wanted)[:3]
    more = len(wanted) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
