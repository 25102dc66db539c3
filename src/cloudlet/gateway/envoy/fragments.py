"""Routes of functions that are rendered once and used again in every publication.

One more function among ten thousand changes one branch of the tree; rendering the others again took ten times
as long as everything else that control does for a publication.
"""

from __future__ import annotations

from msgspec import Raw

from .files import JsonObject, to_json
from .structure import EdgeFunction, EdgeModel, function_branch, route_configuration


class Fragments:
    """Remembers the functions of the last model, and nothing else. One call at a time."""

    def __init__(self) -> None:
        self._kept: dict[EdgeFunction, Raw] = {}

    def route_configuration(self, model: EdgeModel) -> JsonObject:
        """Like `structure.route_configuration`; the same JSON when it is encoded by `to_json`."""
        before = self._kept
        self._kept = {each: before.get(each) or _rendered(each) for each in model.functions}
        return route_configuration(model, self._kept.__getitem__)


def _rendered(function: EdgeFunction) -> Raw:
    return Raw(to_json(function_branch(function)))
