"""The contract of control records, held against every store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudlet.model.errors import (
    AlreadyExists,
    Conflict,
    EnvironmentNotFound,
    FunctionNotFound,
    InvalidName,
    ShuttingDown,
    VersionNotFound,
)
from cloudlet.model.function import FunctionConfig, Runtime, ScaleRule, VersionKey
from cloudlet.model.identity import User
from cloudlet.state.base import ControlRecords, RefreshToken, SigningKey
from cloudlet.state.memory import MemoryRecords
from cloudlet.state.sqlite import SqliteRecords

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0


class FixedClock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return NOW


def _memory(path: Path) -> ControlRecords:
    return MemoryRecords(FixedClock())


def _sqlite(path: Path) -> ControlRecords:
    return SqliteRecords(path / "control.db", FixedClock())


@pytest.fixture(params=[_memory, _sqlite], ids=["memory", "sqlite"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlRecords]:
    make: Callable[[Path], ControlRecords] = request.param
    made = make(tmp_path)
    yield made
    made.close()


def _key(function: str = "hello", digest: str = "a" * 16, environment: str = "default") -> VersionKey:
    return VersionKey(environment, function, digest)


async def _add(records: ControlRecords, key: VersionKey, config: FunctionConfig | None = None) -> None:
    await records.add_version(key, config or FunctionConfig(), f"/code/{key.digest}", NOW)


async def test_default_environment_exists_at_once(records: ControlRecords) -> None:
    assert [(e.name, e.created_at, e.aliases) for e in records.environments()] == [("default", NOW, ())]
    assert records.resolve_environment("default").name == "default"


async def test_environments_are_created_listed_by_name_and_found(records: ControlRecords) -> None:
    made = await records.create_environment("shop-1")
    assert made.name == "shop-1" and made.created_at == NOW
    assert [e.name for e in records.environments()] == ["default", "shop-1"]
    with pytest.raises(AlreadyExists):
        await records.create_environment("shop-1")
    with pytest.raises(InvalidName):
        await records.create_environment("../etc")
    with pytest.raises(EnvironmentNotFound):
        records.resolve_environment("other")


async def test_an_alias_resolves_and_can_move(records: ControlRecords) -> None:
    await records.create_environment("b")
    await records.set_environment_alias("prod-8gx", "default")
    assert records.resolve_environment("prod-8gx").name == "default"
    await records.set_environment_alias("prod-8gx", "b")
    assert records.resolve_environment("prod-8gx").name == "b"
    assert [e.aliases for e in records.environments()] == [("prod-8gx",), ()]
    with pytest.raises(AlreadyExists):
        await records.create_environment("prod-8gx")
    with pytest.raises(AlreadyExists):
        await records.set_environment_alias("b", "default")
    with pytest.raises(EnvironmentNotFound):
        await records.set_environment_alias("x", "prod-8gx")


async def test_environment_names_are_case_sensitive(records: ControlRecords) -> None:
    await records.create_environment("Shop")
    await records.create_environment("shop")
    assert records.resolve_environment("Shop").name == "Shop"


async def test_deleting_an_environment_takes_everything_with_it(records: ControlRecords) -> None:
    await records.create_environment("gone")
    await records.set_environment_alias("old", "gone")
    secret = await records.credential("gone")
    key = _key(environment="gone")
    await _add(records, key)
    await records.point_alias(key, "$LATEST", NOW)
    user = await records.user_for_openid("gone", "o1", "", "", "WECHAT", NOW)
    await records.add_refresh_token(RefreshToken("h", "gone", user.uid, "s", NOW + 10))

    await records.delete_environment("gone")

    assert records.find_credential(secret.secret_id) is None
    assert records.functions("gone") == [] and records.versions("gone", "hello") == []
    assert records.find_user("gone", user.uid) is None
    assert await records.use_refresh_token("h", NOW) is None
    assert records.snapshot().versions == ()
    for name in ("gone", "old"):
        with pytest.raises(EnvironmentNotFound):
            records.resolve_environment(name)
    with pytest.raises(EnvironmentNotFound):
        await records.delete_environment("gone")
    await records.create_environment("gone")
    assert (await records.credential("gone")).secret_key != secret.secret_key


async def test_the_default_environment_cannot_be_deleted(records: ControlRecords) -> None:
    with pytest.raises(Conflict):
        await records.delete_environment("default")


async def test_a_credential_is_made_once_and_found_by_its_id(records: ControlRecords) -> None:
    first, second = await asyncio.gather(records.credential("default"), records.credential("default"))
    assert first == second == await records.credential("default")
    assert records.find_credential(first.secret_id) == first
    assert records.find_credential("nobody") is None
    assert len(first.secret_key) >= 32
    with pytest.raises(EnvironmentNotFound):
        await records.credential("other")


async def test_versions_are_numbered_and_adding_one_again_changes_nothing(records: ControlRecords) -> None:
    config = FunctionConfig(
        runtime=Runtime.PYTHON3,
        handler="index.main_handler",
        timeout_s=0.5,
        memory_mb=128,
        concurrency=4,
        environment_variables={"GREETING": "你好"},
        scale=ScaleRule(1, 7, 30.0),
    )
    first = await records.add_version(_key(digest="a" * 16), config, "/code/a", NOW)
    await _add(records, _key(digest="b" * 16))
    again = await records.add_version(_key(digest="a" * 16), FunctionConfig(), "/elsewhere", NOW + 9)
    assert (first.number, first.config, first.code_dir, first.created_at) == (1, config, "/code/a", NOW)
    assert again == first == records.find_version(first.key)
    assert [v.number for v in records.versions("default", "hello")] == [2, 1]
    assert records.find_version(_key(digest="c" * 16)) is None
    with pytest.raises(InvalidName):
        await _add(records, _key(function="__proto__"))
    with pytest.raises(EnvironmentNotFound):
        await _add(records, _key(environment="other"))


async def test_an_alias_names_one_version_and_moves(records: ControlRecords) -> None:
    a, b = _key(digest="a" * 16), _key(digest="b" * 16)
    await _add(records, a)
    assert records.functions("default") == []
    await _add(records, b)
    await records.point_alias(a, "$LATEST", NOW)
    await records.point_alias(b, "$LATEST", NOW + 1)
    await records.point_alias(a, "stable", NOW + 2)
    [(version, alias)] = records.functions("default")
    assert version.key == b and alias.name == "$LATEST" and alias.updated_at == NOW + 1
    snapshot = records.snapshot()
    assert [v.key for v in snapshot.versions] == [a, b]
    assert [(x.name, x.digest) for x in snapshot.aliases] == [("$LATEST", b.digest), ("stable", a.digest)]
    assert snapshot.sequence == records.sequence()
    with pytest.raises(VersionNotFound):
        await records.point_alias(_key(digest="c" * 16), "$LATEST", NOW)


async def test_a_function_is_found_by_its_name_and_counted(records: ControlRecords) -> None:
    a, b = _key(digest="a" * 16), _key(digest="b" * 16)
    await _add(records, a)
    await _add(records, b)
    await records.point_alias(a, "stable", NOW)
    assert records.find_function("default", "hello") is None and records.count_functions() == 0
    await records.point_alias(b, "$LATEST", NOW)
    found = records.find_function("default", "hello")
    assert found == records.find_version(b)
    await records.create_environment("other")
    other = _key(environment="other")
    await _add(records, other)
    await records.point_alias(other, "$LATEST", NOW)
    assert records.count_functions() == 2
    assert records.find_function("other", "hello") == records.find_version(other)
    assert records.find_function("nowhere", "hello") is None
    assert records.find_function("default", "unknown") is None
    await records.delete_function("default", "hello")
    assert records.find_function("default", "hello") is None and records.count_functions() == 1


async def test_a_version_that_comes_back_is_the_new_one(records: ControlRecords) -> None:
    key = _key()
    await _add(records, key)
    await records.point_alias(key, "$LATEST", NOW)
    assert records.snapshot() == records.snapshot()
    await records.delete_function("default", "hello")
    await records.add_version(key, FunctionConfig(timeout_s=9.0), "/elsewhere", NOW + 1)
    await records.point_alias(key, "$LATEST", NOW + 1)
    [version] = records.snapshot().versions
    assert version == records.find_version(key) and version.code_dir == "/elsewhere"


async def test_functions_are_listed_by_name_and_deleted_with_their_versions(records: ControlRecords) -> None:
    for name in ("b", "a", "c"):
        await _add(records, _key(function=name))
        await records.point_alias(_key(function=name), "$LATEST", NOW)
    assert [v.function for v, _ in records.functions("default")] == ["a", "b", "c"]
    assert [v.key for v in await records.delete_function("default", "b")] == [_key(function="b")]
    assert [v.function for v, _ in records.functions("default")] == ["a", "c"]
    assert records.versions("default", "b") == []
    with pytest.raises(FunctionNotFound):
        await records.delete_function("default", "b")


async def test_an_openid_is_one_user_of_one_environment(records: ControlRecords) -> None:
    await records.create_environment("b")
    first, second = await asyncio.gather(
        records.user_for_openid("default", "oA", "", "", "WECHAT", NOW),
        records.user_for_openid("default", "oA", "", "", "WECHAT", NOW),
    )
    assert first == second == records.find_user("default", first.uid)
    assert (await records.user_for_openid("b", "oA", "", "", "WECHAT", NOW)).uid != first.uid
    assert (await records.user_for_openid("default", "oB", "", "", "WECHAT", NOW)).uid != first.uid
    with pytest.raises(EnvironmentNotFound):
        await records.user_for_openid("other", "oA", "", "", "WECHAT", NOW)


async def test_ids_that_become_known_later_are_filled_in_and_then_stay(records: ControlRecords) -> None:
    first = await records.user_for_openid("default", "oA", "", "", "WECHAT", NOW)
    full = await records.user_for_openid("default", "oA", "wx1", "u1", "WECHAT", NOW + 5)
    kept = await records.user_for_openid("default", "oA", "wx2", "u2", "WECHAT", NOW + 6)
    assert (
        full == kept == replace(first, appid="wx1", unionid="u1") == records.find_user("default", first.uid)
    )


async def test_creating_a_user_twice_is_refused(records: ControlRecords) -> None:
    user = User("default", "u1", "ANONYMOUS", NOW)
    assert await records.create_user(user) == user
    with pytest.raises(AlreadyExists):
        await records.create_user(user)
    await records.create_user(replace(user, uid="u2"))
    await records.create_user(replace(user, uid="u3", openid="o"))
    with pytest.raises(AlreadyExists):
        await records.create_user(replace(user, uid="u4", openid="o"))


async def test_using_a_refresh_token_twice_shows_the_first_use(records: ControlRecords) -> None:
    token = RefreshToken("hash", "default", "u1", "s1", NOW + 100)
    await records.add_refresh_token(token)
    assert await records.use_refresh_token("hash", NOW + 1) == token
    assert await records.use_refresh_token("hash", NOW + 2) == replace(token, used_at=NOW + 1)
    assert await records.use_refresh_token("hash", NOW + 3) == replace(token, used_at=NOW + 1)
    assert await records.use_refresh_token("other", NOW) is None


async def test_expired_refresh_tokens_are_forgotten(records: ControlRecords) -> None:
    await records.add_refresh_token(RefreshToken("old", "default", "u", "s", NOW))
    await records.add_refresh_token(RefreshToken("new", "default", "u", "s", NOW + 1))
    assert await records.use_refresh_token("old", NOW) is None
    assert await records.use_refresh_token("new", NOW) is not None


async def test_revoking_a_session_ends_its_tokens_and_is_remembered(records: ControlRecords) -> None:
    for name, session in (("a", "s1"), ("b", "s1"), ("c", "s2")):
        await records.add_refresh_token(RefreshToken(name, "default", "u", session, NOW + 100))
    await records.revoke_session("default", "s1", NOW + 900)
    assert await records.use_refresh_token("a", NOW) is None
    assert await records.use_refresh_token("b", NOW) is None
    assert await records.use_refresh_token("c", NOW) is not None
    assert records.revoked_sessions(NOW) == {"s1": NOW + 900}
    await records.revoke_session("default", "s1", NOW + 1)
    assert records.revoked_sessions(NOW + 899) == {"s1": NOW + 900}
    assert records.revoked_sessions(NOW + 900) == {}


async def test_signing_keys_are_newest_first_and_can_be_retired_and_deleted(records: ControlRecords) -> None:
    old, new = SigningKey("k1", "pem1", NOW), SigningKey("k2", "pem2", NOW + 1)
    await records.add_signing_key(old)
    await records.add_signing_key(new)
    assert records.signing_keys() == [new, old]
    await records.add_signing_key(replace(old, retired_at=NOW + 2, private_pem="other"))
    assert records.signing_keys() == [new, replace(old, retired_at=NOW + 2)]
    await records.delete_signing_key("k1")
    await records.delete_signing_key("k1")
    assert records.signing_keys() == [new]


async def test_the_sequence_grows_by_one_with_every_change_and_with_nothing_else(
    records: ControlRecords,
) -> None:
    start = records.sequence()
    await records.create_environment("b")
    with pytest.raises(AlreadyExists):
        await records.create_environment("b")
    await _add(records, _key())
    await _add(records, _key())
    assert records.sequence() == start + 2
    assert records.snapshot().sequence == start + 2


async def test_many_writes_at_once_all_count(records: ControlRecords) -> None:
    start = records.sequence()
    await asyncio.gather(*(records.create_environment(f"e{n}") for n in range(200)))
    assert records.sequence() == start + 200
    assert len(records.environments()) == 201


async def test_a_closed_store_refuses_writes(records: ControlRecords) -> None:
    records.close()
    with pytest.raises(ShuttingDown):
        await records.create_environment("late")
