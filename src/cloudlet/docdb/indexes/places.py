"""What a query says about places, as intervals of the keys of geographic indexes."""

from __future__ import annotations

from collections.abc import Iterable

from cloudlet.docdb.bytekeys import KeyPart
from cloudlet.docdb.filter.ast import GeoIntersects, GeoWithin, Near, Node
from cloudlet.docdb.geo.cells import cover, key_of, spans
from cloudlet.docdb.geo.rects import Rect, of_place
from cloudlet.docdb.indexes.constraints import Choice, Interval


def place_condition(conditions: Iterable[Node], path: str) -> GeoWithin | GeoIntersects | Near | None:
    """A condition that only documents with a place at the path meet: they are all in an index on it."""
    for node in conditions:
        if isinstance(node, GeoWithin | GeoIntersects | Near) and node.path.text == path:
            return node
    return None


def place_choice(conditions: Iterable[Node], part: KeyPart, multikey: bool) -> Choice | None:
    """The cells of the first region or place that is asked for; of an index that has only met single points
    (not ``multikey``) no cell that holds these has to be looked up.
    """
    node = place_condition(conditions, part.path)
    if node is None or part.kind == "value":
        return None
    found = spans(cover(_rects(node), part.kind), with_larger=multikey)
    return Choice(tuple(Interval(key_of(low), key_of(end)) for low, end in found))


def _rects(node: GeoWithin | GeoIntersects | Near) -> tuple[Rect, ...]:
    match node:
        case GeoWithin(_, region):
            return region.rects()
        case GeoIntersects(_, place):
            return of_place(place)
        case Near(_, search):
            return search.rects(search.farthest)
