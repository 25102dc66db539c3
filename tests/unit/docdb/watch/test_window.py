"""The window of a query with a limit, against sorting everything."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from cloudlet.docdb.base import id_key
from cloudlet.docdb.sort import Sort, parse_sort, sort_documents
from cloudlet.docdb.watch.events import DataType
from cloudlet.docdb.watch.images import Image, Touched
from cloudlet.docdb.watch.order import place_of, total
from cloudlet.docdb.watch.pending import Move
from cloudlet.docdb.watch.window import Window, moves_between

ORDERS = [total(parse_sort(order)) for order in (None, {"n": 1}, {"n": -1}, {"m": 1, "n": -1}, {"_id": -1})]


def first(documents: dict[bytes, dict[str, Any]], order: Sort, limit: int) -> list[dict[str, Any]]:
    rows = list(documents.values())
    sort_documents(rows, order, lambda item: item)
    return rows[:limit]


def known(documents: dict[bytes, dict[str, Any]], order: Sort, limit: int, reserve: int) -> Window:
    """A window as a read makes it."""
    rows = first(documents, order, limit + reserve)
    boundary = None if len(rows) == len(documents) else place_of(rows[-1], order)
    images = {id_key(row["_id"]): Image(row) for row in rows}
    return Window.of(images, order, limit, reserve, boundary)


def told(client: dict[bytes, dict[str, Any]], moves: list[Move]) -> None:
    for move in moves:
        assert (move.key in client) == (move.old is not None)
        if move.new is None:
            del client[move.key]
        else:
            client[move.key] = move.new.document


@pytest.mark.parametrize("seed", range(60))
def test_a_window_is_what_sorting_everything_gives(seed: int) -> None:
    random = Random(seed)
    order, limit, reserve = random.choice(ORDERS), random.randint(1, 4), random.randint(1, 3)

    def document(number: int) -> dict[str, Any]:
        return {"_id": number, "n": random.choice([0, 1, 2, None, "x"]), "m": random.randint(0, 1)}

    stored = {id_key(number): document(number) for number in range(random.randint(0, 12))}
    window = known(stored, order, limit, reserve)
    client = {key: image.document for key, image in window.shown().items()}
    for _ in range(60):
        number = random.randint(0, 15)
        key = id_key(number)
        if random.random() < 0.45:
            stored.pop(key, None)
            moves = window.change(key, None, DataType.REMOVE)
        else:
            stored[key] = document(number)
            moves = window.change(key, Image(stored[key]), DataType.UPDATE)
        told(client, moves)
        shown = [image.document for image in window.shown().values()]
        assert {id_key(item["_id"]): item for item in shown} == client
        if not window.short:
            assert shown == first(stored, order, limit)
            continue
        window = known(stored, order, limit, reserve)
        former = {key: Image(item) for key, item in client.items()}
        told(client, moves_between(former, window.shown(), {}))


@pytest.mark.parametrize("seed", range(40))
def test_a_former_window_is_restored_exactly_or_not_at_all(seed: int) -> None:
    random = Random(seed)
    order, limit = random.choice(ORDERS), random.randint(1, 4)
    stored = {id_key(n): {"_id": n, "n": random.randint(0, 3), "m": n % 2} for n in range(14)}
    former = dict(stored)
    touched: dict[bytes, Touched] = {}
    for _ in range(random.randint(1, 5)):
        number = random.randint(0, 16)
        key = id_key(number)
        before = stored.get(key)
        after = None if random.random() < 0.5 else {"_id": number, "n": random.randint(0, 3), "m": 0}
        step = Touched(None if before is None else Image(before), None if after is None else Image(after))
        touched[key] = Touched(touched[key].before, step.after) if key in touched else step
        stored.pop(key, None)
        if after is not None:
            stored[key] = after
    matched = [key for key, item in touched.items() if item.before is not None]
    restored = known(stored, order, limit, 2).restored(touched, matched)
    if restored is not None:
        assert [image.document for image in restored.shown().values()] == first(former, order, limit)


def test_a_window_forgets_what_lies_far_behind_its_limit() -> None:
    window = Window(ORDERS[1], 2, 3)
    for number in range(50):
        window.change(id_key(number), Image({"_id": number, "n": -number}), DataType.ADD)
    assert window.bytes < 10 * Image({"_id": 50, "n": -50}).size
    assert [image.document["_id"] for image in window.shown().values()] == [49, 48]
