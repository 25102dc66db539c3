"""Which element of an array made a document match: the index that ``$`` stands for.

It is used by the paths of updates and by projections. Manual: "$ (update)", "$ (projection)".
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudlet.docdb.filter.ast import And, Node, Not, Or, Path
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.paths import array_index
from cloudlet.docdb.values import MISSING, Document, Value


def matched_index(node: Node, document: Document, array_path: tuple[str, ...]) -> int | None:
    """Index of the first element of the array at ``array_path`` that satisfies a condition on that array.

    None if the path leads to no array (elements are entered by their index only) or no condition of the
    filter is about it. The first condition that some element satisfies decides.
    """
    array = _at(document, array_path)
    if type(array) is not list:
        return None
    prefix = ".".join(array_path)
    for leaf, path in _positive_leaves(node):
        if path.text != prefix and not path.text.startswith(prefix + "."):
            continue
        match = compile_node(leaf)
        for index, element in enumerate(array):
            if match(_with_array(document, array_path, [element])):
                return index
    return None


def has_condition_below(node: Node, field: str) -> bool:
    """Whether a condition that a match satisfies is about ``field`` or something inside it."""
    return any(path.text.split(".", 1)[0] == field for _, path in _positive_leaves(node))


def _positive_leaves(node: Node) -> Iterator[tuple[Node, Path]]:
    """Conditions that a match satisfies; what stands below a negation says nothing about an element."""
    match node:
        case And(children) | Or(children):
            for child in children:
                yield from _positive_leaves(child)
        case Not():
            return
        case _:
            # Conditions on the document as a whole have no path.
            path = getattr(node, "path", None)
            if isinstance(path, Path):
                yield node, path


def _at(document: Document, path: tuple[str, ...]) -> Value:
    value: Value = document
    for name in path:
        if type(value) is dict:
            value = value.get(name, MISSING)
        elif type(value) is list and 0 <= array_index(name) < len(value):
            value = value[array_index(name)]
        else:
            return MISSING
    return value


def _with_array(value: Value, path: tuple[str, ...], array: list[Value]) -> Value:
    """``value`` with ``array`` in place of what is at ``path``."""
    if not path:
        return array
    if type(value) is dict:
        return {**value, path[0]: _with_array(value[path[0]], path[1:], array)}
    index = array_index(path[0])
    return [*value[:index], _with_array(value[index], path[1:], array), *value[index + 1 :]]
