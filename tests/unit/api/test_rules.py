"""Custom rules over the admin interface."""

from __future__ import annotations

import pytest

from tests.unit.api.test_admin import admin

pytestmark = pytest.mark.anyio

PATH = "/environments/default/collections/notes"
RULE = {"read": "doc.public == true", "fields": {"phone": {"read": False}}}


async def test_a_rule_is_set_shown_and_taken_away() -> None:
    async with admin() as ask:
        await ask("POST", "/environments/default/collections", {"name": "notes"})
        changed = await ask("PUT", f"{PATH}/rule", {"rule": RULE})
        assert changed.status == 200
        assert changed.json == {"name": "notes", "preset": "PRIVATE", "rule": RULE}
        listed = (await ask("GET", "/environments/default/collections")).json["collections"]
        assert listed == [changed.json]
        refused = await ask("PUT", f"{PATH}/rule", {"rule": {"read": "doc.public = true"}})
        assert refused.status == 400
        assert refused.json["message"] == "rule read: character 12: write == instead of ="
        assert (await ask("PUT", f"{PATH}/rule", {})).status == 400
        assert (await ask("PUT", f"{PATH}/rule", {"rule": 5})).status == 400
        assert (await ask("PUT", "/environments/default/collections/no/rule", {"rule": {}})).status == 404
        taken = await ask("PUT", f"{PATH}/rule", {"rule": None})
        assert taken.json == {"name": "notes", "preset": "PRIVATE"}


async def test_access_is_explained_without_being_used() -> None:
    async with admin() as ask:
        await ask("POST", "/environments/default/collections", {"name": "notes"})
        await ask("PUT", f"{PATH}/rule", {"rule": {**RULE, "write": "doc._openid == auth.openid"}})

        async def access(**asked: object) -> tuple[bool, str]:
            reply = await ask("POST", f"{PATH}/access", asked)
            assert reply.status == 200
            return reply.json["allowed"], reply.json["why"]

        assert await access(operation="read", filter={"public": True}) == (True, "")
        allowed, why = await access(operation="read", filter={"n": {"$gt": 1}}, openid="ann")
        assert not allowed
        assert why == (
            "read on notes is denied by the rule's read: "
            "doc.public == true (public == true; the query says nothing about public)"
        )
        assert await access(operation="create", data={"n": 1}, openid="ann") == (True, "")
        assert (await access(operation="create", data={"n": 1}, uid="web"))[0] is False
        assert (await ask("POST", f"{PATH}/access", {"operation": "drop"})).status == 400
        shown = await ask("GET", f"{PATH}/documents")
        assert shown.json["documents"] == []
