"""The operators that stand below a path, each with its reader.

A new one is a reader and an entry in ``FIELD_OPERATORS``; names that only add to another operator beside them
(as ``$options`` to ``$regex``) stand in ``COMPANIONS`` and are read by that operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloudlet.docdb.filter.ast import (
    NOTHING,
    AnyBut,
    BitOp,
    Bits,
    Compare,
    ElemMatch,
    Exists,
    In,
    Mod,
    Node,
    Not,
    Op,
    Path,
    Size,
    TypeIs,
)
from cloudlet.docdb.filter.bsontypes import type_names
from cloudlet.docdb.filter.geo import GEO_COMPANIONS, GEO_OPERATORS
from cloudlet.docdb.filter.reader import (
    ITSELF,
    FieldReader,
    Parser,
    is_operators,
    joined,
    shown,
)
from cloudlet.docdb.numeric import INT32_MAX, is_number, truncated_64, whole_64
from cloudlet.docdb.values import Binary, Document, MaxKey, MinKey, Regex, Value
from cloudlet.model.errors import InvalidFilter

IN_VALUES_MAX: Final = 10_000
BIT_BYTES_MAX: Final = 1_024
"""Length of a binary bit mask."""

_COMPARISONS: Final = {op.value: op for op in Op}
_PATHLESS: Final = frozenset({"$and", "$or", "$nor", "$expr", "$jsonSchema", "$comment"})
_PATTERN_OPTIONS: Final = frozenset("imsxug")


def _comparison(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    op, value = _COMPARISONS[name], operators[name]
    kind = type(value)
    if kind is Regex and op is not Op.EQ:
        raise InvalidFilter(f"{name} cannot compare with a regular expression")
    if op is not Op.EQ and (kind is MinKey or kind is MaxKey):
        return _beside_all(path, op, value)
    return Compare(path, op, value)


def _beside_all(path: Path, op: Op, value: MinKey | MaxKey) -> Node:
    """A bound at one end of all values: the one comparison that looks at values of every type."""
    included = op in (Op.GTE, Op.LTE)
    if (op in (Op.GT, Op.GTE)) is (type(value) is MinKey):
        return AnyBut(path, () if included else (value,))
    return Compare(path, Op.EQ, value) if included else NOTHING


def _not_equal(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    if type(operators[name]) is Regex:
        raise InvalidFilter("$ne cannot have a regular expression; use $not")
    return Not(Compare(path, Op.EQ, operators[name]))


def _one_of(parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    values = operators[name]
    if type(values) is not list:
        raise InvalidFilter(f"{name} needs an array")
    if len(values) > IN_VALUES_MAX:
        raise InvalidFilter(f"{name} may have {IN_VALUES_MAX} values")
    patterns = tuple(item for item in values if type(item) is Regex)
    for regex in patterns:
        parser.check_pattern(regex)
    for item in values:
        if type(item) is dict and is_operators(item):
            raise InvalidFilter(f"cannot nest operators in {name}")
    return In(path, tuple(item for item in values if type(item) is not Regex), patterns)


def _none_of(parser: Parser, path: Path, name: str, operators: Document, depth: int) -> Node:
    return Not(_one_of(parser, path, name, operators, depth))


def _exists(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    value = operators[name]
    wanted = value is not None and value is not False and not (is_number(value) and value == 0)
    return Exists(path) if wanted else Not(Exists(path))


def _negation(parser: Parser, path: Path, name: str, operators: Document, depth: int) -> Node:
    value = operators[name]
    if type(value) is Regex:
        return Not(parser.pattern(path, value))
    if type(value) is not dict or not is_operators(value):
        raise InvalidFilter("$not needs a regular expression or an object of operators")
    return Not(parser.nested(path, value, depth))


def _all_of(parser: Parser, path: Path, name: str, operators: Document, depth: int) -> Node:
    values = operators[name]
    if type(values) is not list:
        raise InvalidFilter("$all needs an array")
    if not values:
        return NOTHING
    parser.count(len(values))
    of_elements = [type(item) is dict and next(iter(item), "") == "$elemMatch" for item in values]
    if any(of_elements):
        if not all(of_elements):
            raise InvalidFilter("$all with $elemMatch may hold nothing but $elemMatch")
        return joined([parser.nested(path, item, depth) for item in values])
    if any(type(item) is dict and is_operators(item) for item in values):
        raise InvalidFilter("no operators but $elemMatch may stand in $all")
    return joined([parser.equal(path, item) for item in values])


def _size(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    size = whole_64(operators[name])
    if size is None or size < 0:
        raise InvalidFilter(f"$size needs a whole number from 0 on, not {shown(operators[name])}")
    return Size(path, size)


def _modulo(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    value = operators[name]
    if type(value) is not list or len(value) != 2:
        raise InvalidFilter("$mod needs an array of divisor and remainder")
    divisor, remainder = (truncated_64(item) for item in value)
    if divisor is None or remainder is None:
        raise InvalidFilter(f"$mod needs two numbers that 64 bits hold, not {shown(value)}")
    if divisor == 0:
        raise InvalidFilter("the divisor of $mod cannot be 0")
    return Mod(path, divisor, remainder)


def _type_is(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    value = operators[name]
    wanted = value if type(value) is list else [value]
    if not wanted:
        raise InvalidFilter("$type needs at least one type")
    try:
        return TypeIs(path, type_names(wanted))
    except LookupError as exc:
        raise InvalidFilter(f"$type does not know the type {shown(exc.args[0])}") from exc


def _elem_match(parser: Parser, path: Path, name: str, operators: Document, depth: int) -> Node:
    value = operators[name]
    if type(value) is not dict:
        raise InvalidFilter("$elemMatch needs an object")
    parser.inside_element += 1
    if is_operators(value) and next(iter(value)) not in _PATHLESS:
        node = ElemMatch(path, parser.nested(ITSELF, value, depth), of_objects=False)
    else:
        node = ElemMatch(path, parser.document(value, depth + 1), of_objects=True)
    parser.inside_element -= 1
    return node


def _regex(parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    value, options = operators[name], operators.get("$options")
    if type(value) is str:
        value = Regex(value)
    if type(value) is not Regex:
        raise InvalidFilter("$regex has to be text or a regular expression")
    if options is not None:
        if type(options) is not str or not _PATTERN_OPTIONS.issuperset(options):
            raise InvalidFilter("$options has to be letters of i, m, s, x, u")
        value = Regex(value.pattern, "".join(sorted(set(options) - {"g"})))
    if "\0" in value.pattern:
        raise InvalidFilter("a regular expression cannot hold a null character")
    return parser.pattern(path, value)


def _bits(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    value = operators[name]
    if type(value) is list:
        positions = _bit_positions(name, value)
    elif type(value) is bytes or type(value) is Binary:
        raw = value if isinstance(value, bytes) else value.raw
        if len(raw) > BIT_BYTES_MAX:
            raise InvalidFilter(f"the bit mask of {name} may have {BIT_BYTES_MAX} bytes")
        positions = _set_bits(int.from_bytes(raw, "little"))
    else:
        mask = whole_64(value)
        if mask is None or mask < 0:
            raise InvalidFilter(
                f"{name} needs an array of positions, binary data or a whole number from 0 on, "
                f"not {shown(value)}"
            )
        positions = _set_bits(mask)
    return Bits(path, BitOp(name), positions)


def _bit_positions(name: str, values: list[Value]) -> frozenset[int]:
    if len(values) > IN_VALUES_MAX:
        raise InvalidFilter(f"{name} may have {IN_VALUES_MAX} positions")
    positions = set()
    for item in values:
        position = whole_64(item)
        if position is None or not 0 <= position <= INT32_MAX:
            raise InvalidFilter(
                f"a bit position of {name} must be a whole number from 0 on, not {shown(item)}"
            )
        positions.add(position)
    return frozenset(positions)


def _set_bits(mask: int) -> frozenset[int]:
    return frozenset(position for position in range(mask.bit_length()) if mask >> position & 1)


FIELD_OPERATORS: Final[Mapping[str, FieldReader]] = {
    **dict.fromkeys(_COMPARISONS, _comparison),
    "$ne": _not_equal,
    "$in": _one_of,
    "$nin": _none_of,
    "$exists": _exists,
    "$not": _negation,
    "$all": _all_of,
    "$size": _size,
    "$mod": _modulo,
    "$type": _type_is,
    "$elemMatch": _elem_match,
    "$regex": _regex,
    **dict.fromkeys((op.value for op in BitOp), _bits),
    **GEO_OPERATORS,
}
"""Every operator that may stand below a path."""

COMPANIONS: Final[Mapping[str, frozenset[str]]] = {"$options": frozenset({"$regex"}), **GEO_COMPANIONS}
"""Names that only add to another operator beside them, and the operators they may stand beside."""
