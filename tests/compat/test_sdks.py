"""The vendors' own SDKs from npm, unmodified: inside functions and outside with credentials."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloudlet.functions.toolchain import find_toolchain
from tests.integration.platform import Platform

HERE = Path(__file__).parent
PACKAGES = {"wx4": "wx-server-sdk", "wx26": "wx-server-sdk", "node318": "@cloudbase/node-sdk"}

pytestmark = pytest.mark.xdist_group("sdks")


@pytest.mark.parametrize("function", ["wx4", "wx26"])
def test_wechat_context(platform: Platform, function: str) -> None:
    context = platform.call(function, {"step": "context"}, "user-a").body
    assert context == {"OPENID": "user-a", "ENV": "default", "SOURCE": "wx_client"}


@pytest.mark.parametrize("function", ["wx4", "wx26"])
def test_wechat_documents(platform: Platform, function: str) -> None:
    answer = platform.call(function, {"step": "documents", "collection": f"items_{function}"})
    assert answer.status == 200, answer.body
    found: Mapping[str, Any] = answer.body
    assert found["added"] == "string"
    assert "E11000" in found["duplicate"]["errMsg"]
    assert found["one"] == {"_id": "mine", "n": 2, "tags": [], "_openid": "x"}
    assert found["byDate"] == 1
    assert found["isDate"] is True
    assert found["dated"] is True
    assert found["updated"] == {"updated": 1}
    assert found["nested"] == 1
    assert found["merged"] == {"updated": 2}
    assert found["whole"]["o"] == {"p": 1, "q": {"r": "s"}, "z": True}
    assert found["whole"]["tags"] == ["a", "b"]
    assert found["replaced"] == {"updated": 1, "created": 0}
    assert found["created2"]["stats"] == {"updated": 0, "created": 1}
    assert found["created2"]["_id"] == "made-by-set"
    assert found["all"] == found["total"] == 3
    assert found["like"] == 1
    assert found["removed"] == {"removed": 1}
    assert "does not exist" in found["gone"]["errMsg"]
    assert found["noUpdate"] == {"updated": 0}
    assert found["missing"]["errCode"] == -502005
    assert "collection not exist" in found["missing"]["errMsg"].lower()


@pytest.mark.parametrize("function", ["wx4", "wx26"])
def test_nested_calls_keep_the_caller(platform: Platform, function: str) -> None:
    nested = platform.call(function, {"step": "nested"}, "user-b").body
    assert nested["OPENID"] == "user-b"
    assert nested["SOURCE"] == "wx_client,scf"


def test_calls_that_call_themselves_end(platform: Platform) -> None:
    answer = platform.call("wx26", {"step": "recurse", "name": "wx26"})
    assert answer.status == 200
    told = answer.body
    while "errMsg" not in told:
        told = told["result"]
    assert "deep" in told["errMsg"]


@pytest.mark.parametrize(("function", "code"), [("wx4", -1), ("wx26", -501001)])
def test_a_missing_function_is_told_as_upstream(platform: Platform, function: str, code: int) -> None:
    told = platform.call(function, {"step": "failing"}).body
    assert told["errCode"] == code
    assert "FUNCTION_NOT_FOUND" in told["errMsg"] or "no-such-function" in told["errMsg"]


def test_node_sdk_inside_a_function(platform: Platform) -> None:
    answer = platform.call("node318", {"step": "documents", "collection": "items_node"}, "user-a")
    assert answer.status == 200, answer.body
    found = answer.body
    assert found["added"] == "string"
    assert found["got"] == [{"_id": "a", "n": 5}]
    assert found["updated"] == 2
    assert found["doc"] == [{"_id": "b", "n": 7, "seen": True}]
    assert found["pulled"] == 1
    assert [each["list"] for each in found["list"]] == [[1, 3]]
    assert found["both"]["doc"]["n"] == 12
    assert found["missing"] == []
    assert found["removed"] == 1
    assert found["total"] == 2
    info = platform.call("node318", {"step": "context"}, "user-a").body
    assert info["openId"] == "user-a"
    assert platform.call("node318", {"step": "nested"}, "user-b").body["OPENID"] == "user-b"


@pytest.mark.parametrize("function", ["wx4", "wx26"])
def test_wechat_transactions(platform: Platform, function: str) -> None:
    answer = platform.call(function, {"step": "transactions", "collection": f"moved_{function}"})
    assert answer.status == 200, answer.body
    found = answer.body
    assert found["one"] == 1
    assert found["isDate"] is True
    assert found["added"] == "string"
    assert found["updated"] == {"updated": 1}
    assert found["created"] == "c"
    assert found["removed"] == {"removed": 1}
    assert found["found"] == [3, 6, 10]
    assert found["outside"] == 2
    assert found["after"] == [3, 6, 10]
    assert found["rolledBack"] == "changed my mind"
    assert "does not exist" in found["missing"]
    assert "TransactionNotExist" in found["late"]["errMsg"]
    assert found["last"] == 6


def test_node_sdk_transactions(platform: Platform) -> None:
    """The texts are those that the SDK's own tests compare."""
    answer = platform.call("node318", {"step": "transactions", "collection": "moved_node"})
    assert answer.status == 200, answer.body
    found = answer.body
    assert found["one"] == {"_id": "a", "n": 1}
    assert found["none"] is None
    assert found["added"] == ["string", 1]
    assert (found["updated"], found["removed"]) == (1, 1)
    assert found["upserted"] == [{"_id": "c"}]
    assert found["both"] == {"_id": "a", "n": 7}
    assert found["found"] == [10, 7]
    ending = "Please check your request, but if the problem persists, contact us."
    assert found["conflict"] == {
        "code": "DATABASE_TRANSACTION_CONFLICT",
        "message": "[ResourceUnavailable.TransactionConflict] Transaction is conflict, maybe resource "
        f"operated by others. {ending}",
    }
    assert found["ended"] == {
        "code": "DATABASE_TRANSACTION_FAIL",
        "message": "[ResourceUnavailable.TransactionNotExist] Transaction does not exist on the server, "
        f"transaction must be commit or abort in 30 seconds. {ending}",
    }
    assert found["last"] == [{"_id": "a", "n": 100}]


def test_fifty_buyers_of_one_stock_with_each_sdk_are_all_served(platform: Platform) -> None:
    """At the same time, each with the attempts its SDK makes."""
    functions = ["wx4", "wx26", "node318"]
    stock = {"collection": "stock", "buyers": 50, "left": 200}
    platform.call("node318", {"step": "stock", **stock})
    for name in functions:
        platform.player(name)  # signed in before the rush
    with ThreadPoolExecutor(len(functions)) as threads:
        answers = list(
            threads.map(lambda name: platform.call(name, {"step": "buy", **stock}, name), functions)
        )
    assert [answer.status for answer in answers] == [200] * 3, [answer.body for answer in answers]
    assert sorted(left for answer in answers for left in answer.body) == list(range(51, 201))
    assert platform.call("node318", {"step": "left", **stock}).body == 50


def test_collections_survive_in_one_environment(platform: Platform) -> None:
    """Two SDKs on one collection see each other's documents."""
    platform.call("wx4", {"step": "documents", "collection": "shared"})
    again = platform.call("wx26", {"step": "documents", "collection": "shared"})
    assert "E11000" in again.body["message"] or again.status == 200


@pytest.mark.parametrize("function", ["wx4", "node318"])
def test_outside_with_credentials(platform: Platform, function: str) -> None:
    told = outside(platform, function, credentials(platform))
    assert told["data"] == [{"_id": "one", "n": 2}]
    assert "OPENID" not in told["context"]


@pytest.mark.parametrize("function", ["wx4", "node318"])
def test_outside_with_a_wrong_key(platform: Platform, function: str) -> None:
    told = outside(platform, function, credentials(platform) | {"secretKey": "0" * 32})
    assert "SIGN_PARAM_INVALID" in json.dumps(told["failed"])


def credentials(platform: Platform) -> dict[str, str]:
    return platform.installation.json("env", "credentials", "default")


def outside(platform: Platform, function: str, credentials: Mapping[str, str]) -> Any:
    """Run the program with the packages that the deploy of `function` installed."""
    code = next((platform.installation.data / "code" / "default" / function).glob("*/node_modules"))
    done = subprocess.run(
        [
            str(find_toolchain({}).node),
            HERE / "outside.cjs",
            PACKAGES[function],
            json.dumps(credentials),
            f"out_{function}",
        ],
        env=os.environ | {"NODE_PATH": str(code), "TENCENTCLOUD": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
