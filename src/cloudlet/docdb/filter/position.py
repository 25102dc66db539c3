"""Which element of an array made a document match: the index that ``$`` stands for in an update's path."""

from __future__ import annotations

from collections.abc import Iterator

from cloudlet.docdb.filter.ast import And, Compare, ElemMatch, Exists, In, Mod, Node, Not, Or, Size, TypeIs
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.values import MISSING, Document, Value


def matched_index(node: Node, document: Document, array_path: tuple[str, ...]) -> int | None:
    """Index of the first element of the array at ``array_path`` that satisfies a condition on that array.

    None if the path leads to no array (no element is taken apart on the way) or no condition of the filter is
    about it. The first condition that some element satisfies decides.
    """
    array = _at(document, array_path)
    if type(array) is not list:
        return None
    prefix = ".".join(array_path)
    for leaf in _positive_leaves(node):
        text = leaf.path.text
        if text != prefix and not text.startswith(prefix + "."):
            continue
        match = compile_node(leaf)
        for index, element in enumerate(array):
            if match(_with_array(document, array_path, [element])):
                return index
    return None


def _positive_leaves(
    node: Node,
) -> Iterator[Compare | In | Exists | Size | Mod | TypeIs | ElemMatch]:
    """Conditions that a match satisfies; what stands below a negation says nothing about an element."""
    match node:
        case And(children) | Or(children):
            for child in children:
                yield from _positive_leaves(child)
        case Not():
            return
        case _:
            yield node


def _at(document: Document, path: tuple[str, ...]) -> Value:
    value: Value = document
    for name in path:
        if type(value) is not dict:
            return MISSING
        value = value.get(name, MISSING)
    return value


def _with_array(document: Document, path: tuple[str, ...], array: list[Value]) -> Document:
    if len(path) == 1:
        return {**document, path[0]: array}
    return {**document, path[0]: _with_array(document[path[0]], path[1:], array)}
