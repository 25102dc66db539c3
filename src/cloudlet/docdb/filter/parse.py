"""From a filter as the SDKs send it to the tree. Whatever is not understood is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cloudlet.docdb.filter.ast import (
    NOTHING,
    And,
    Compare,
    ElemMatch,
    Exists,
    In,
    Mod,
    Node,
    Not,
    Op,
    Or,
    Path,
    Size,
    TypeIs,
)
from cloudlet.docdb.filter.regex import compile_regex
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.values import Document, Regex, Value, type_name
from cloudlet.model.errors import InvalidFilter

DEPTH_MAX: Final = 40
NODES_MAX: Final = 2_000
IN_VALUES_MAX: Final = 10_000

_LOGICAL: Final = ("$and", "$or", "$nor")
_ITSELF: Final = Path("", ())
_TYPES: Final = {
    1: "double",
    2: "string",
    3: "object",
    4: "array",
    5: "binData",
    7: "objectId",
    8: "bool",
    9: "date",
    10: "null",
    11: "regex",
    16: "int",
    18: "long",
}
_TYPE_NAMES: Final = frozenset(_TYPES.values()) | {"number"}
_COMPARISONS: Final = {op.value: op for op in Op}


def parse_filter(value: Value) -> Node:
    """The tree of a prepared filter; raises InvalidFilter that names the operator or limit."""
    return _Parser().document(value, 0)


def parse_condition(value: Value) -> tuple[Node, bool]:
    """A condition on one array element (``$pull``), and whether it is a filter on the fields of an object.

    Raises InvalidFilter.
    """
    if type(value) is dict and value and not next(iter(value)).startswith("$"):
        return parse_filter(value), True
    return _Parser().field(_ITSELF, value, 0), False


@dataclass(slots=True)
class _Parser:
    """One parse, counting what it makes."""

    nodes: int = field(default=0)

    def document(self, value: Value, depth: int) -> Node:
        """A filter on documents (or, inside ``$elemMatch``, on an array's objects)."""
        if type(value) is not dict:
            raise InvalidFilter(f"a filter must be an object, not {_shown(value)}")
        if depth > DEPTH_MAX:
            raise InvalidFilter(f"the filter is nested more than {DEPTH_MAX} levels deep")
        children = []
        for name, item in value.items():
            self.count()
            if name in _LOGICAL:
                children.append(self.logical(name, item, depth))
            elif name == "$comment":
                continue
            elif name.startswith("$"):
                raise InvalidFilter(f"unknown top level operator: {name}")
            else:
                children.append(self.field(Path(name, split_path(name, InvalidFilter)), item, depth))
        return _joined(children)

    def count(self, amount: int = 1) -> None:
        self.nodes += amount
        if self.nodes > NODES_MAX:
            raise InvalidFilter(f"the filter has more than {NODES_MAX} conditions")

    def logical(self, name: str, value: Value, depth: int) -> Node:
        if type(value) is not list or not value:
            raise InvalidFilter(f"{name} must be a nonempty array")
        children = tuple(self.document(item, depth + 1) for item in value)
        if name == "$and":
            return _joined(list(children))
        return Or(children) if name == "$or" else Not(Or(children))

    def field(self, path: Path, value: Value, depth: int) -> Node:
        if type(value) is dict and value and next(iter(value)).startswith("$"):
            return self.operators(path, value, depth)
        return _equal(path, value)

    def operators(self, path: Path, value: Document, depth: int) -> Node:
        children = []
        for name, operand in value.items():
            self.count()
            if name == "$options":
                if "$regex" not in value:
                    raise InvalidFilter("$options needs a $regex")
                continue
            if name == "$regex":
                children.append(_pattern(path, operand, value.get("$options")))
                continue
            reader = _OPERATORS.get(name)
            if reader is None:
                raise InvalidFilter(f"unknown operator: {name}")
            children.append(reader(self, path, operand, depth))
        return _joined(children)

    def comparison(self, op: Op, path: Path, value: Value) -> Node:
        if op is Op.EQ:
            return Compare(path, op, value)
        if type(value) is Regex:
            raise InvalidFilter(f"{op.value} cannot compare with a regular expression")
        return Compare(path, op, value)

    def not_equal(self, path: Path, value: Value, _depth: int) -> Node:
        if type(value) is Regex:
            raise InvalidFilter("$ne cannot have a regular expression; use $not")
        return Not(Compare(path, Op.EQ, value))

    def one_of(self, path: Path, value: Value, _depth: int) -> Node:
        if type(value) is not list:
            raise InvalidFilter("$in and $nin need an array")
        if len(value) > IN_VALUES_MAX:
            raise InvalidFilter(f"$in and $nin may have {IN_VALUES_MAX} values")
        patterns = tuple(item for item in value if type(item) is Regex)
        for pattern in patterns:
            self.count()
            compile_regex(pattern)
        for item in value:
            if type(item) is dict and item and next(iter(item)).startswith("$"):
                raise InvalidFilter("cannot nest operators in $in or $nin")
        return In(path, tuple(item for item in value if type(item) is not Regex), patterns)

    def none_of(self, path: Path, value: Value, depth: int) -> Node:
        return Not(self.one_of(path, value, depth))

    def exists(self, path: Path, value: Value, _depth: int) -> Node:
        wanted = value is not None and value is not False and value != 0
        return Exists(path) if wanted else Not(Exists(path))

    def negation(self, path: Path, value: Value, depth: int) -> Node:
        if type(value) is Regex:
            return Not(_pattern(path, value, None))
        if type(value) is not dict or not value or not next(iter(value)).startswith("$"):
            raise InvalidFilter("$not needs a regular expression or an object of operators")
        return Not(self.nested(path, value, depth))

    def nested(self, path: Path, value: Document, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise InvalidFilter(f"the filter is nested more than {DEPTH_MAX} levels deep")
        return self.operators(path, value, depth + 1)

    def all_of(self, path: Path, value: Value, depth: int) -> Node:
        if type(value) is not list:
            raise InvalidFilter("$all needs an array")
        if not value:
            return NOTHING
        children: list[Node] = []
        for item in value:
            self.count()
            if type(item) is dict and "$elemMatch" in item:
                children.append(self.nested(path, item, depth))
            elif type(item) is dict and item and next(iter(item)).startswith("$"):
                raise InvalidFilter("no operators but $elemMatch may stand in $all")
            else:
                children.append(_equal(path, item))
        return _joined(children)

    def size(self, path: Path, value: Value, _depth: int) -> Node:
        return Size(path, _whole(value, "$size", minimum=0))

    def modulo(self, path: Path, value: Value, _depth: int) -> Node:
        if type(value) is not list or len(value) != 2:
            raise InvalidFilter("$mod needs an array of divisor and remainder")
        divisor = _whole(value[0], "$mod", truncate=True)
        if divisor == 0:
            raise InvalidFilter("the divisor of $mod cannot be 0")
        return Mod(path, divisor, _whole(value[1], "$mod", truncate=True))

    def type_is(self, path: Path, value: Value, _depth: int) -> Node:
        wanted = value if type(value) is list else [value]
        names = {_TYPES.get(item) if type(item) in (int, float) else item for item in wanted}
        if not names or not all(isinstance(name, str) and name in _TYPE_NAMES for name in names):
            raise InvalidFilter(f"$type does not know the type {_shown(value)}")
        return TypeIs(path, frozenset(str(name) for name in names))

    def elem_match(self, path: Path, value: Value, depth: int) -> Node:
        if type(value) is not dict:
            raise InvalidFilter("$elemMatch needs an object")
        first = next(iter(value), "")
        if first.startswith("$") and first not in _LOGICAL:
            return ElemMatch(path, self.nested(_ITSELF, value, depth), of_objects=False)
        return ElemMatch(path, self.document(value, depth + 1), of_objects=True)


def _joined(children: list[Node]) -> Node:
    return children[0] if len(children) == 1 else And(tuple(children))


def _equal(path: Path, value: Value) -> Node:
    return _pattern(path, value, None) if type(value) is Regex else Compare(path, Op.EQ, value)


def _pattern(path: Path, value: Value, options: Value) -> Node:
    if type(value) is str:
        value = Regex(value)
    if type(value) is not Regex:
        raise InvalidFilter("$regex has to be text or a regular expression")
    if options is not None:
        if type(options) is not str or not set(options) <= set("imsxug"):
            raise InvalidFilter("$options has to be letters of i, m, s, x, u")
        value = Regex(value.pattern, "".join(sorted(set(options) - {"g"})))
    compile_regex(value)
    return In(path, (), (value,))


def _whole(value: Value, name: str, minimum: int | None = None, truncate: bool = False) -> int:
    usable = type(value) is int or (type(value) is float and abs(value) < 2**63)
    if not usable or (not truncate and value != int(value)) or (minimum is not None and value < minimum):
        raise InvalidFilter(f"{name} needs a whole number, not {_shown(value)}")
    return int(value)


def _shown(value: Value) -> str:
    return f"{type_name(value)} {str(value)[:40]!r}"


def _compare_reader(op: Op) -> Callable[[_Parser, Path, Value, int], Node]:
    def read(parser: _Parser, path: Path, value: Value, _depth: int) -> Node:
        return parser.comparison(op, path, value)

    return read


_OPERATORS: Final[dict[str, Callable[[_Parser, Path, Value, int], Node]]] = {
    **{name: _compare_reader(op) for name, op in _COMPARISONS.items()},
    "$ne": _Parser.not_equal,
    "$in": _Parser.one_of,
    "$nin": _Parser.none_of,
    "$exists": _Parser.exists,
    "$not": _Parser.negation,
    "$all": _Parser.all_of,
    "$size": _Parser.size,
    "$mod": _Parser.modulo,
    "$type": _Parser.type_is,
    "$elemMatch": _Parser.elem_match,
}
