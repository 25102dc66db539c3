"""Indexes that cloudbaserc.json declares."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.base import CreateIndex
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.indexes.declared import PLUGIN, declared_indexes
from cloudlet.model.errors import InvalidProject


def collections(*indexes: Any, name: Any = "dishes") -> dict[str, Any]:
    return {"database": {"collections": [{"collectionName": name, "createIndexes": list(indexes)}]}}


def index(name: Any = "i", keys: Any = None, **schema: Any) -> dict[str, Any]:
    keys = [{"Name": "a", "Direction": "1"}] if keys is None else keys
    return {"IndexName": name, "MgoKeySchema": {"MgoIndexKeys": keys, **schema}}


def test_the_plugins_form_and_ours() -> None:
    config = {
        "envId": "e",
        "framework": {
            "plugins": {
                "client": {"use": "@cloudbase/framework-plugin-website", "inputs": {"collections": 7}},
                "db": {
                    "use": PLUGIN,
                    "inputs": {
                        "collections": [
                            {
                                "collectionName": "orders",
                                "aclTag": "PRIVATE",
                                "createIndexes": [
                                    index(
                                        "by_user",
                                        [
                                            {"Name": "_openid", "Direction": "1"},
                                            {"Name": "at", "Direction": "-1"},
                                        ],
                                        MgoIsUnique=True,
                                    )
                                ],
                            },
                            {"collectionName": "empty"},
                        ]
                    },
                },
            }
        },
        **collections(
            index("s", MgoIsSparse=True),
            index("p", partialFilterExpression={"n": {"$gt": 1}}),
            index("t", [{"Name": "at", "Direction": 1}], expireAfterSeconds=60),
            index("geo", [{"Name": "place", "Direction": "2dsphere"}]),
        ),
    }
    at = key_part("at")
    assert declared_indexes(config) == (
        CreateIndex("orders", "by_user", (key_part("_openid"), key_part("at", True)), unique=True),
        CreateIndex("dishes", "s", (key_part("a"),), sparse=True),
        CreateIndex("dishes", "p", (key_part("a"),), partial={"n": {"$gt": 1}}),
        CreateIndex("dishes", "t", (at,), expire_after_s=60),
        CreateIndex("dishes", "geo", (key_part("place", False, "2dsphere"),)),
    )


@pytest.mark.parametrize(
    "config", [{}, {"framework": 1}, {"database": {}}, {"framework": {"plugins": {"x": 1}}}]
)
def test_a_file_without_indexes(config: dict[str, Any]) -> None:
    assert declared_indexes(config) == ()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"database": {"collections": {}}}, r"database\.collections must be a list"),
        ({"database": {"collections": [7]}}, r"collections\[0\] must be an object"),
        (collections(name=""), r"collections\[0\]\.collectionName"),
        (collections(7), r"createIndexes\[0\] must be an object"),
        (collections({"IndexName": "i"}), r"MgoKeySchema must be an object"),
        (collections(index(name="")), r"createIndexes\[0\]: an index needs a name"),
        (collections(index(keys=[])), r"an index needs fields"),
        (collections(index(keys="a")), r"MgoIndexKeys must be a list"),
        (
            collections(index(keys=[{"Name": "a", "Direction": "up"}])),
            r"MgoIndexKeys\[0\]: .* one of 1, -1, 2d",
        ),
        (collections(index(keys=[{"Name": "$a"}])), "cannot be indexed"),
        (collections(index(keys=[{"Name": f"f{at}"} for at in range(33)])), "31 fields, this one has 33"),
        (collections(index(MgoIsUnique="yes")), "MgoIsUnique must be true or false"),
        (collections(index(unique=True)), "unique is not known"),
        (collections(index(expireAfterSeconds="1")), "must be a whole number"),
        (collections(index(expireAfterSeconds=-1)), "time to expire"),
        (collections(index(partialFilterExpression={"a": {"$regex": "x"}})), "partial index may only hold"),
        (collections(index(MgoIsSparse=True, partialFilterExpression={"a": 1})), "sparse and partial"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidProject, match=said):
        declared_indexes(config)
