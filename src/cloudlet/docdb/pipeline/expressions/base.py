"""What all expressions share: variables, field paths, the compiler and the ways to build an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from cloudlet.docdb.limits import PATH_SEGMENTS_MAX, Overrun
from cloudlet.docdb.values import MISSING, Document, OrderKey, Rank, Value, order_key, type_name
from cloudlet.model.errors import InvalidFilter, QueryTooCostly

Variables: TypeAlias = dict[str, Value]
"""Values by name without ``$$``. ``ROOT`` is there only where it is not the document itself."""
Expression: TypeAlias = Callable[[Document, Variables], Value]
"""The value for a document (what ``$$CURRENT`` means), which is never changed. May be MISSING."""

BUDGET: Final = ""
"""The key of the Budget among variables: no variable can be called that."""
ROOT: Final = "ROOT"
NODES_MAX: Final = 10_000
"""Operators, fields and literals of one pipeline."""
ITEMS_MAX: Final = 1_000_000
"""Elements of an array that is being computed."""
TEXT_MAX: Final = 16 * 1024 * 1024
"""Characters of a text that is being computed."""
_CHARGE_FROM: Final = 64
"""Results with fewer elements are not worth counting."""


class Marker(Enum):
    """What ``$redact`` decides about a level of a document."""

    DESCEND = "descend"
    PRUNE = "prune"
    KEEP = "keep"


@dataclass(slots=True)
class Budget:
    """Steps that may still be taken in the server's own process."""

    left: int

    def spend(self, steps: int) -> None:
        """Raises Overrun when nothing is left."""
        self.left -= steps
        if self.left < 0:
            raise Overrun("the pipeline takes more steps than it may in the server's own process")


def spend(variables: Variables, steps: int) -> None:
    """Count steps against the budget, if there is one."""
    budget = variables.get(BUDGET)
    if budget is not None:
        budget.spend(steps)


def refused(code: int, message: str) -> InvalidFilter:
    """The error for what is refused, with MongoDB's numeric code."""
    return InvalidFilter(f"{message} (code {code})")


def kind_name(value: Value) -> str:
    """The name of a value's type as expressions know it: ``missing`` is one."""
    return "missing" if value is MISSING else type_name(value)


def nullish(value: Value) -> bool:
    """Whether a value is null or missing."""
    return value is None or value is MISSING


def truthy(value: Value) -> bool:
    """Whether a value counts as true: everything but false, null, missing and zero."""
    kind = type(value)
    if kind is bool:
        return bool(value)
    if value is None or value is MISSING:
        return False
    if kind is str or kind is dict or kind is list:
        return True
    return bool(value != 0)


_MISSING_KEY: Final[OrderKey] = (Rank.MIN_KEY, 1)


def full_key(value: Value) -> OrderKey:
    """The sort key of expressions: as that of documents, but a missing value is below null,
    and only above MinKey."""
    return _MISSING_KEY if value is MISSING else order_key(value)


def group_key(value: Value) -> object:
    """A hashable that is equal for equal values."""
    return value if type(value) is str else full_key(value)


def shown(value: Value) -> str:
    """A value in a message."""
    return "missing" if value is MISSING else str(value)[:80]


@dataclass(frozen=True, slots=True)
class Constant:
    """An expression that is the same for every document."""

    value: Value

    def __call__(self, _document: Document, _variables: Variables) -> Value:
        return self.value


@dataclass(slots=True)
class Facts:
    """What is learnt while one pipeline is compiled."""

    nodes: int = 0
    costly: bool = False
    """Something may take long for one document: a regular expression that can backtrack."""
    patterned: bool = False
    """There is a regular expression."""
    whole: bool = False
    """The whole document is needed, not only ``fields``."""
    fields: set[str] = field(default_factory=set)
    """Top-level fields that are read."""
    variables: set[str] = field(default_factory=set)
    """Variables that are read, the system's not counted."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """Turns values into expressions; knows the operators and the variables in scope."""

    operators: Mapping[str, Builder]
    names: frozenset[str] = frozenset()
    redacting: bool = False
    facts: Facts = field(default_factory=Facts)

    def compile(self, value: Value) -> Expression:
        """The closure of a value. Raises InvalidFilter."""
        self.facts.nodes += 1
        if self.facts.nodes > NODES_MAX:
            raise InvalidFilter(f"the expressions have more than {NODES_MAX} parts")
        kind = type(value)
        if kind is str:
            return self._text(value) if value.startswith("$") else Constant(value)
        if kind is dict:
            return self._object(value)
        if kind is list:
            return self._array(value)
        return Constant(value)

    def inner(self, *names: str) -> Compiler:
        """The compiler of a part that also has these variables."""
        return Compiler(self.operators, self.names | frozenset(names), self.redacting, self.facts)

    def arguments(self, name: str, operand: Value, low: int, high: int | None) -> list[Expression]:
        """The operands of an operator; one that stands alone needs no array."""
        given = operand if type(operand) is list else [operand]
        count = len(given)
        if low == high and count != low:
            raise refused(16020, f"Expression {name} takes exactly {low} arguments. {count} were passed in.")
        if count < low or (high is not None and count > high):
            upper = f", and at most {high}" if high is not None else ""
            raise refused(
                28667, f"Expression {name} takes at least {low} arguments{upper}, but {count} were passed in."
            )
        return [self.compile(item) for item in given]

    def named(
        self, name: str, operand: Value, needed: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Expression]:
        """The operands of an operator that takes an object; those that are not given are left out."""
        given = checked_names(name, operand, needed, optional)
        return {key: self.compile(item) for key, item in given.items()}

    def path(self, path: str) -> Expression:
        """The expression of a field path given without ``$``."""
        return self._field(path)

    def _text(self, text: str) -> Expression:
        if not text.startswith("$$"):
            return self._field(text[1:])
        name, _, path = text[2:].partition(".")
        names = split_names(path) if path else ()
        if "." in text and not path:
            raise refused(40353, "FieldPath must not end with a '.'.")
        if name == "REMOVE":
            return Constant(MISSING)
        if name == "CURRENT" and name not in self.names:
            return self._field(path) if path else self._whole()
        if name == ROOT:
            self.facts.whole = self.facts.whole or not path
            self.facts.fields.update(names[:1])
            return _variable_or_document(names)
        if name == "NOW":
            return _now
        if name in Marker.__members__ and self.redacting:
            return Constant(Marker[name])
        if name not in self.names:
            raise refused(17276, f"Use of undefined variable: {name[:80]}")
        self.facts.variables.add(name)
        return _variable(name, names)

    def _field(self, path: str) -> Expression:
        if not path:
            raise refused(16872, "'$' by itself is not a valid FieldPath")
        names = split_names(path)
        self.facts.fields.add(names[0])
        if "CURRENT" in self.names:
            return _variable("CURRENT", names)
        if len(names) == 1:
            name = names[0]
            return lambda document, _: document.get(name, MISSING)
        return lambda document, _: walk(document, names, 0)

    def _whole(self) -> Expression:
        self.facts.whole = True
        return lambda document, _: document

    def _object(self, value: Document) -> Expression:
        first = next(iter(value), "")
        if first.startswith("$"):
            if len(value) != 1:
                raise refused(
                    15983,
                    "An object representing an expression must have exactly one field: "
                    f"{', '.join(value)[:120]}",
                )
            return self._operator(first, value[first])
        for name in value:
            check_name(name)
        fields = [(name, self.compile(item)) for name, item in value.items()]
        if all(isinstance(item, Constant) for _, item in fields):
            return Constant({name: item.value for name, item in fields if isinstance(item, Constant)})

        def build(document: Document, variables: Variables) -> Value:
            made = {}
            for name, item in fields:
                found = item(document, variables)
                if found is not MISSING:
                    made[name] = found
            return made

        return build

    def _operator(self, name: str, operand: Value) -> Expression:
        builder = self.operators.get(name)
        if builder is None:
            raise refused(168, f"Unrecognized expression '{name[:80]}'")
        made = builder(self, name, operand)
        return _charged(made, name) if name in _GROWING else made

    def _array(self, value: list[Value]) -> Expression:
        items = [self.compile(item) for item in value]
        if all(isinstance(item, Constant) for item in items):
            return Constant([item.value for item in items if isinstance(item, Constant)])

        def build(document: Document, variables: Variables) -> Value:
            found = [item(document, variables) for item in items]
            return [None if item is MISSING else item for item in found]

        return build


Builder: TypeAlias = Callable[[Compiler, str, Value], Expression]
"""Makes the closure of one operator from its name and its raw operand."""

_GROWING: Final = frozenset(
    [
        "$arrayToObject",
        "$concat",
        "$concatArrays",
        "$filter",
        "$map",
        "$mergeObjects",
        "$objectToArray",
        "$range",
        "$reduce",
        "$regexFindAll",
        "$replaceAll",
        "$replaceOne",
        "$reverseArray",
        "$setDifference",
        "$setIntersection",
        "$setUnion",
        "$slice",
        "$sortArray",
        "$split",
        "$toLower",
        "$toUpper",
        "$zip",
    ]
)
"""Operators whose result can be much larger than what each document holds."""


def _charged(expression: Expression, name: str) -> Expression:
    def charged(document: Document, variables: Variables) -> Value:
        found = expression(document, variables)
        kind = type(found)
        if (kind is list or kind is str) and len(found) > _CHARGE_FROM:
            if len(found) > (ITEMS_MAX if kind is list else TEXT_MAX):
                raise QueryTooCostly(f"the result of {name} is too large; make it smaller before")
            spend(variables, len(found) // _CHARGE_FROM)
        return found

    return charged


def walk(value: Value, names: tuple[str, ...], at: int) -> Value:
    """What a path leads to. Through an array it leads to the array of what its objects have there."""
    last = len(names)
    while at < last:
        kind = type(value)
        if kind is dict:
            value = value.get(names[at], MISSING)
            at += 1
        elif kind is list:
            found = [walk(item, names, at) for item in value if type(item) is dict]
            return [item for item in found if item is not MISSING]
        else:
            return MISSING
    return value


def split_names(path: str) -> tuple[str, ...]:
    """The field names of a path. Raises InvalidFilter; numbers are names here, not positions."""
    names = tuple(path.split("."))
    if len(names) > PATH_SEGMENTS_MAX:
        raise InvalidFilter(f"a field path has more than {PATH_SEGMENTS_MAX} names")
    for name in names:
        if not name:
            raise refused(15998, f"FieldPath field names may not be empty strings: {path[:80]!r}")
        if name.startswith("$"):
            raise refused(16410, f"FieldPath field names may not start with '$': {path[:80]!r}")
        if "\0" in name:
            raise refused(16411, "FieldPath field names may not contain '\\0'")
    return names


def check_name(name: str) -> None:
    """Raises InvalidFilter for a name that a computed object cannot have."""
    if "." in name:
        raise refused(16412, f"FieldPath field names may not contain '.': {name[:80]!r}")
    if name.startswith("$"):
        raise refused(16410, f"FieldPath field names may not start with '$': {name[:80]!r}")


def checked_names(
    operator: str, operand: Value, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Document:
    """The operand of an operator that takes an object. Raises InvalidFilter for other names."""
    if type(operand) is not dict:
        raise refused(9, f"{operator} needs an object with {', '.join(needed)}; found: {kind_name(operand)}")
    for name in operand:
        if name not in needed and name not in optional:
            raise refused(9, f"Unrecognized argument to {operator}: {name[:80]}")
    for name in needed:
        if name not in operand:
            raise refused(9, f"Missing '{name}' parameter to {operator}")
    return operand


def _now(_document: Document, variables: Variables) -> Value:
    now = variables.get("NOW")
    if now is None:
        raise InvalidFilter("$$NOW has no value here; send the date itself")
    return now


def _variable(name: str, names: tuple[str, ...]) -> Expression:
    if not names:
        return lambda _, variables: variables.get(name, MISSING)
    return lambda _, variables: walk(variables.get(name, MISSING), names, 0)


def _variable_or_document(names: tuple[str, ...]) -> Expression:
    if not names:
        return lambda document, variables: variables.get(ROOT, document)
    return lambda document, variables: walk(variables.get(ROOT, document), names, 0)


# Ways to build operators from functions of values.


def unary(function: Callable[[Value], Value]) -> Builder:
    """An operator of one operand."""

    def build(compiler: Compiler, name: str, operand: Value) -> Expression:
        (one,) = compiler.arguments(name, operand, 1, 1)
        return lambda document, variables: function(one(document, variables))

    return build


def binary(function: Callable[[Value, Value], Value]) -> Builder:
    """An operator of two operands."""

    def build(compiler: Compiler, name: str, operand: Value) -> Expression:
        one, two = compiler.arguments(name, operand, 2, 2)
        return lambda document, variables: function(one(document, variables), two(document, variables))

    return build


def variadic(function: Callable[..., Value], low: int = 0, high: int | None = None) -> Builder:
    """An operator whose operands are the function's arguments."""

    def build(compiler: Compiler, name: str, operand: Value) -> Expression:
        items = compiler.arguments(name, operand, low, high)
        return lambda document, variables: function(*[item(document, variables) for item in items])

    return build


def keyword(
    function: Callable[..., Value], needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Builder:
    """An operator that takes an object; its fields are the function's keyword arguments, in which ``in`` is
    called ``in_``. What is not given is not passed.
    """

    def build(compiler: Compiler, name: str, operand: Value) -> Expression:
        given = compiler.named(name, operand, needed, optional)
        items = [(f"{key}_" if key == "in" else key, item) for key, item in given.items()]
        return lambda document, variables: function(**{key: item(document, variables) for key, item in items})

    return build
