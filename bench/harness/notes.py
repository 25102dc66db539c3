"""The documents of bench-documents, about 500 bytes each, and the four requests for us and for a peer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from .wrk import Request

OWNERS = 50
NOTES = 20_000
"""Documents of the collection that is read and changed; inserts go to another one."""
REQUESTS = 2_000
OPERATIONS = ("get", "list20", "insert", "inc")
RULE = '{"read": "doc._openid == auth.openid", "write": "doc._openid == auth.openid"}'
STARTED_MS = 1_700_000_000_000
STEP_MS = 1_000

_DOCUMENTS = "/v1/database/instances/(default)/databases/(default)/collections"
_JSON = {"content-type": "application/json"}


def note_id(number: int) -> str:
    return f"n{number:07d}"


def owner(number: int) -> str:
    return f"o{number % OWNERS:02d}"


def fields(number: int) -> dict[str, object]:
    """A note without its id, its owner and its time."""
    return {
        "title": f"note number {number}",
        "price": number * 0.5,
        "count": 0,
        "tags": ["red", "green", "blue"],
        "place": {"city": "a city of a river", "street": "a street with trees", "number": 12},
        "text": "All of this is text that a person might have written. " * 5,
    }


def at_ms(number: int) -> int:
    return STARTED_MS + number * STEP_MS


def stored(number: int) -> dict[str, object]:
    """A note as our document service keeps it."""
    at = datetime.fromtimestamp(at_ms(number) / 1000, UTC)
    return {"_id": note_id(number), "_openid": owner(number), "at": at, **fields(number)}


def our_requests(operation: str, tokens: Mapping[str, str], seed: int = 1) -> list[Request]:
    """What the web SDK sends for ``doc(id).get()``, ``where({_openid}).orderBy('at', 'desc').limit(20)``,
    ``add`` and ``doc(id).update({count: inc(1)})``; everybody works on what is theirs."""

    def request(number: int) -> Request:
        headers = {"authorization": f"Bearer {tokens[owner(number)]}"}
        documents = f"{_DOCUMENTS}/notes/documents"
        if operation == "get":
            query = _query(offset=0, limit=100, query={"_id": note_id(number)})
            return Request("GET", f"{documents}?{query}", headers)
        if operation == "list20":
            order = [{"field": "at", "direction": "desc"}]
            query = _query(offset=0, limit=20, order=order, query={"_openid": "{openid}"})
            return Request("GET", f"{documents}?{query}", headers)
        if operation == "insert":
            note = {"at": {"$date": at_ms(number)}, **fields(number)}
            return Request("POST", f"{_DOCUMENTS}/fresh/documents", headers | _JSON, _json({"data": [note]}))
        change = {"query": {"_id": note_id(number)}, "data": {"$inc": {"count": 1}}, "multi": False}
        body = change | {"upsert": False, "replaceMode": False}
        return Request("PATCH", documents, headers | _JSON, _json(body))

    return _many(request, seed)


def parse_requests(operation: str, key: str, seed: int = 1) -> list[Request]:
    """The same of Parse Server's REST interface, with its master key: no session, no rights."""
    headers = {"X-Parse-Application-Id": "bench", "X-Parse-Master-Key": key}

    def request(number: int) -> Request:
        notes = "/parse/classes/Note"
        if operation == "get":
            return Request("GET", f"{notes}/{note_id(number)}", headers)
        if operation == "list20":
            query = _query(where={"owner": owner(number)}, order="-at", limit=20)
            return Request("GET", f"{notes}?{query}", headers)
        if operation == "insert":
            return Request("POST", "/parse/classes/Fresh", headers | _JSON, _json(parse_note(number)))
        change = {"count": {"__op": "Increment", "amount": 1}}
        return Request("PUT", f"{notes}/{note_id(number)}", headers | _JSON, _json(change))

    return _many(request, seed)


def parse_note(number: int) -> dict[str, object]:
    at = datetime.fromtimestamp(at_ms(number) / 1000, UTC)
    iso = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
    return {"owner": owner(number), "at": {"__type": "Date", "iso": iso}, **fields(number)}


def _many(request: Callable[[int], Request], seed: int) -> list[Request]:
    numbers: Sequence[int] = random.Random(seed).sample(range(NOTES), REQUESTS)
    return [request(number) for number in numbers]


def _query(**given: object) -> str:
    """As the SDK writes it: every value as JSON, unless it is text."""
    return "&".join(
        f"{name}={quote(value if isinstance(value, str) else _json(value), safe='')}"
        for name, value in given.items()
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
