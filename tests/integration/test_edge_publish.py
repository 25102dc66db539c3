"""Publishing to a real Envoy: what is promised to the callers of `Publisher`, and to calls meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudlet.gateway.envoy.bans import ban_filter
from cloudlet.gateway.envoy.command import argv, write_initial
from cloudlet.gateway.envoy.installer import Installer
from cloudlet.gateway.envoy.keys import PublicKey
from cloudlet.gateway.envoy.publisher import Publisher
from cloudlet.gateway.envoy.structure import EdgeEnvironment, EdgeFunction, EdgeModel, route_configuration
from cloudlet.model.errors import EdgeUnavailable, ShuttingDown
from cloudlet.model.function import VersionKey
from tests.integration.edge_support import ADD, Edge, Upstream, model, running_edge

pytestmark = pytest.mark.anyio


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as started:
        yield started


async def test_an_unknown_field_is_not_ignored(edge: Edge) -> None:
    await edge.serve_late()
    installer = Installer(edge.options.files, edge.admin, 10)
    routes = route_configuration(model(early=False)) | {"misspelt": 1}
    with pytest.raises(EdgeUnavailable, match="refused"):
        await installer.install(installer.routes, [routes])
    bans = ban_filter(())
    bans["typed_config"] = bans["typed_config"] | {"misspelt": 1}
    with pytest.raises(EdgeUnavailable, match="refused"):
        await installer.install(installer.bans, [bans])
    assert (await edge.call()).status == 200


async def test_a_removed_instance_gets_no_new_call(edge: Edge) -> None:
    first, second = await edge.instance("i1"), await edge.instance("i2")
    await edge.serve_early(first, second)
    await edge.publisher.set_endpoints(ADD, [str(second.socket)])
    for _ in range(20):
        assert (await edge.call()).status == 200
    assert not first.calls
    assert len(second.calls) == 20
    await edge.publisher.set_endpoints(ADD, [])
    assert (await edge.call()).status == 200
    assert len(edge.activator.calls) == 1


async def test_calls_spread_over_the_instances(edge: Edge) -> None:
    gate, arrived = asyncio.Event(), asyncio.Semaphore(0)

    async def hold(request: web.Request, body: bytes) -> web.StreamResponse:
        arrived.release()
        await gate.wait()
        return web.json_response(None)

    instances = [await edge.instance(f"i{number}", hold) for number in range(4)]
    await edge.serve_early(*instances)
    calls = []
    for _ in range(8):
        # One after the other: a host's running calls count from when they are on a connection.
        calls.append(asyncio.create_task(edge.call()))
        async with asyncio.timeout(10):
            await arrived.acquire()
    gate.set()
    assert [reply.status for reply in await asyncio.gather(*calls)] == [200] * 8
    assert [len(instance.calls) for instance in instances] == [2, 2, 2, 2]


async def test_changes_under_load_lose_no_call(edge: Edge) -> None:
    instances = [await edge.instance(f"i{number}") for number in range(3)]
    sockets = [str(instance.socket) for instance in instances]
    newer = VersionKey(ADD.environment, ADD.function, "e2e2e2e2e2e2e2e2")
    await edge.serve_late()
    statuses = Counter[int]()
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            statuses[(await edge.call()).status] += 1

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    early, late = model(early=True), model(early=False)
    for _ in range(3):
        await edge.publisher.set_endpoints(ADD, sockets)
        await edge.publisher.publish(early)
        await edge.publisher.set_endpoints(ADD, sockets[1:])
        await edge.publisher.set_endpoints(newer, sockets[:1])
        deployed = replace(early.functions[0], digest=newer.digest)
        await edge.publisher.publish(replace(early, functions=(deployed,)))
        await edge.publisher.set_endpoints(newer, [])
        await edge.publisher.publish(late)
    stop.set()
    await asyncio.gather(*callers)

    assert set(statuses) == {200}
    assert edge.activator.calls
    assert all(instance.calls for instance in instances)


async def test_a_call_that_runs_survives_the_end_of_its_cluster(edge: Edge) -> None:
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def hold(request: web.Request, body: bytes) -> web.StreamResponse:
        arrived.set()
        await gate.wait()
        return web.json_response("done")

    await edge.serve_early(await edge.instance(answer=hold))
    call = asyncio.create_task(edge.call())
    async with asyncio.timeout(10):
        await arrived.wait()
    await edge.publisher.set_endpoints(ADD, [])
    await edge.serve_late()
    gate.set()
    reply = await call
    assert (reply.status, reply.json) == (200, "done")


async def test_a_version_nobody_told_about_is_late_bound_until_somebody_does(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.publisher.publish(model(early=True))
    await edge.call()
    assert len(edge.activator.calls) == 1
    await edge.publisher.set_endpoints(ADD, [str(instance.socket)])
    await edge.call()
    assert len(instance.calls) == 1


async def test_many_publications_at_once_become_few_and_each_is_awaited(edge: Edge) -> None:
    def functions(count: int) -> EdgeModel:
        made = (EdgeFunction("env-1", f"f{number}", "d", 3.0) for number in range(count))
        return EdgeModel((EdgeEnvironment("env-1"),), tuple(made))

    before = await edge.admin.stats(r"^http\.edge\.rds\.functions\.update_success$")
    await asyncio.gather(*(edge.publisher.publish(functions(count)) for count in range(1, 41)))
    after = await edge.admin.stats(r"^http\.edge\.rds\.functions\.update_success$")
    assert sum(after.values()) - sum(before.values()) <= 3
    assert (await edge.call(path="/v1/functions/f39")).status == 200
    assert len(edge.activator.calls) == 1


async def test_what_envoy_refuses_is_reported_and_the_old_state_stays(edge: Edge) -> None:
    await edge.serve_late()
    old = edge.options.files.routes.read_text()
    refused = replace(model(early=False).functions[0], timeout_s=-100.0)
    with pytest.raises(EdgeUnavailable, match=r"refused its new routes\.json: .*duration"):
        await edge.publisher.publish(EdgeModel((), (refused,)))
    assert edge.options.files.routes.read_text() == old
    assert (await edge.call()).status == 200
    await edge.serve_late(timeout_s=2.0)
    await edge.call()
    assert edge.activator.calls[-1].headers["x-cloudlet-timeout-ms"] == ["2000"]


async def test_keys_change_without_cutting_a_connection(edge: Edge) -> None:
    await edge.serve_late()
    old_headers = edge.bearer()
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    try:
        assert await _status(edge, reader, writer, old_headers) == 200
        old = PublicKey.of_pem("k1", edge.public_pem)
        edge.signing_key = ec.generate_private_key(ec.SECP256R1())
        encoded = edge.signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        new = PublicKey.of_pem("k2", encoded.decode())
        await edge.publisher.set_keys([new, old])
        assert await _status(edge, reader, writer, old_headers) == 200
        await edge.publisher.set_keys([replace(new, kid="k1")])
        assert await _status(edge, reader, writer, edge.bearer()) == 200
        assert await _status(edge, reader, writer, old_headers) == 401
    finally:
        writer.close()
        await writer.wait_closed()


async def _status(
    edge: Edge, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]
) -> int:
    authorization = headers["authorization"]
    writer.write(
        f"POST /v1/functions/add HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n"
        "content-length: 0\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line for line in head.splitlines() if line.startswith("content-length: "))
    await reader.readexactly(int(length.split()[1]))
    return int(head.split()[1])


async def test_calls_do_not_notice_that_control_restarts(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)
    await edge.publisher.close()
    assert (await edge.call()).status == 200

    edge.publisher = Publisher(edge.options)
    await edge.publisher.start()
    assert (await edge.call()).status == 200
    assert len(instance.calls) == 2
    # What the edge has from the process before can be taken away, too.
    await edge.publisher.set_endpoints(ADD, [])
    assert (await edge.call()).status == 200
    assert len(edge.activator.calls) == 1
    await edge.publisher.close()
    edge.publisher = Publisher(edge.options)
    await edge.publisher.start()
    edge.activator.calls.clear()
    # Its first state knows nothing about instances yet: calls are late-bound until the nodes have reported.
    await edge.publisher.publish(model(early=True))
    assert (await edge.call()).status == 200
    assert len(edge.activator.calls) == 1
    await edge.publisher.set_endpoints(ADD, [str(instance.socket)])
    assert (await edge.call()).status == 200
    assert len(instance.calls) == 3


async def test_a_restarted_envoy_serves_what_was_published(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)
    await edge.stop_envoy()
    write_initial(edge.options, keep=True)
    await edge.start_envoy()
    await edge.publisher.set_endpoints(ADD, [str(instance.socket)])
    assert (await edge.call()).status == 200
    assert len(instance.calls) == 1
    assert not edge.activator.calls


async def test_an_edge_that_does_not_answer_is_an_error_in_time(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)
    await edge.publisher.close()
    edge.publisher = Publisher(edge.options, limit_s=0.3, ack_limit_s=0.3)
    await edge.publisher.start()
    await edge.publisher.set_endpoints(ADD, [str(instance.socket)])
    await edge.publisher.publish(model(early=True))
    await edge.stop_envoy()
    with pytest.raises(EdgeUnavailable, match="acknowledge"):
        await edge.publisher.set_endpoints(ADD, [])
    with pytest.raises(EdgeUnavailable, match=r"has not taken its new clusters\.json"):
        await edge.publisher.publish(model(early=False))
    with pytest.raises(EdgeUnavailable):
        await edge.publisher.stats()


async def test_a_closed_publisher_says_so(edge: Edge) -> None:
    waiting = asyncio.create_task(edge.publisher.publish(model(early=False)))
    await asyncio.sleep(0)
    await edge.publisher.close()
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        await edge.publisher.publish(model(early=False))


async def test_statistics_are_told_by_version(edge: Edge) -> None:
    await edge.serve_early(await edge.instance())
    for _ in range(3):
        await edge.call()
    stats = await edge.publisher.stats()
    assert set(stats) == {ADD}
    assert (stats[ADD].rq_total, stats[ADD].rq_active, stats[ADD].retries) == (3, 0, 0)


async def test_draining_waits_for_the_calls_in_flight(edge: Edge) -> None:
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def hold(request: web.Request, body: bytes) -> web.StreamResponse:
        arrived.set()
        await gate.wait()
        return web.json_response(None)

    edge.activator.answer = hold
    await edge.serve_late()
    call = asyncio.create_task(edge.call())
    async with asyncio.timeout(10):
        await arrived.wait()
    assert not await edge.admin.drain(0.0)
    gate.set()
    assert (await call).status == 200
    assert await edge.admin.drain(10.0)


async def test_a_second_edge_cannot_take_a_share_of_the_port(edge: Edge) -> None:
    files = replace(
        edge.options.files, directory=edge.directory / "other", admin_socket=edge.directory / "o.sock"
    )
    options = replace(edge.options, port=edge.port, files=files)
    write_initial(options, keep=False)
    process = await asyncio.create_subprocess_exec(
        *argv(options), stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            _, output = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode != 0
    assert b"Address already in use" in output


async def test_without_control_the_static_parts_serve() -> None:
    async with running_edge() as edge:
        await edge.serve_early(Upstream(edge.directory / "none.sock"))
        await edge.publisher.close()
        await edge.stop_envoy()
        await edge.start_envoy()
        assert (await edge.call(path="/admin", headers={})).status == 200
