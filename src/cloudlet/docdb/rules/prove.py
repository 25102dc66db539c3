"""Whether a query, by itself, makes sure that every document it finds reaches a goal.

The proof never looks at data, and is sound rather than complete: "yes" is certain, "no" may mean "cannot see
it". Arrays are why some things that look obvious are refused. ``{a: 5}`` also finds ``{a: [5, 7]}``, so it
proves ``a == 5`` and ``a < 6`` (some value is, in the rule as in the query) but not ``a != 7`` (no value is).
Only ``_id`` is never an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cloudlet.docdb.filter.ast import Compare, ElemMatch, Exists, In, Node, Op, Path
from cloudlet.docdb.filter.match import value_test
from cloudlet.docdb.filter.regex import is_cheap
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.rules.goals import All, Goal, Leaf, Never, Pair, Some, compared, goal_of, leaves_of
from cloudlet.docdb.values import Rank, Regex, Value, equals, order_key, rank
from cloudlet.model.errors import InvalidFilter

STEPS_MAX: Final = 20_000
"""Comparisons of conditions and values that proofs from one query may take (about 30 ms); beyond them nothing
is proved."""
SPLITS_MAX: Final = 12
"""Alternatives of the query (``$or``) that are taken apart one inside the other."""
SPLIT_VALUES_MAX: Final = 50
_WHOLE_DEPTH_MAX: Final = 8
_ORDERED: Final = frozenset({Rank.NUMBER, Rank.STRING, Rank.BOOL, Rank.DATE, Rank.OBJECT_ID})
_UP: Final = (Op.GT, Op.GTE)
_DOWN: Final = (Op.LT, Op.LTE)
ID_PATH: Final = "_id"


def proves(query: Goal, goal: Goal) -> bool:
    """Whether every document that reaches ``query`` reaches ``goal``."""
    return Proof(query).of(goal)


class Proof:
    """The facts of one query, and what follows from them."""

    def __init__(self, query: Goal) -> None:
        self._query = query
        self._tests: dict[int, tuple[Node, Callable[[Value], bool]]] = {}
        self.steps = 0

    def of(self, goal: Goal) -> bool:
        """Whether the goal follows."""
        plain = _plainly(self._query, goal)
        if plain is not None:
            return plain
        try:
            paths = {path for leaf in leaves_of(goal) for path in _paths(leaf)}
            facts, splits = _Facts(), list[Some]()
            _collect(self._query, facts, splits)
            relevant = [split for split in splits if not split.parts or _mentions(split, paths)]
            return self._follows(facts, relevant, goal, SPLITS_MAX)
        except _TooLong:
            return False

    def _follows(self, facts: _Facts, splits: list[Some], goal: Goal, left: int) -> bool:
        if isinstance(goal, All):
            return all(self._follows(facts, splits, part, left) for part in goal.parts)
        if self._directly(facts, goal):
            return True
        if not left:
            return False
        if splits:
            first, rest = splits[0], splits[1:]
            return all(self._in_case(facts, rest, case, goal, left - 1) for case in first.parts)
        node = _to_split(facts, goal)
        if node is None:
            return False
        others = _Facts([fact for fact in facts.positive if fact is not node], facts.negative)
        cases = [Leaf(Compare(node.path, Op.EQ, value)) for value in node.values]
        return all(self._in_case(others, [], case, goal, left - 1) for case in cases)

    def _in_case(self, facts: _Facts, splits: list[Some], case: Goal, goal: Goal, left: int) -> bool:
        self._step(1 + (len(facts.positive) + len(facts.negative)) // 8)
        more, nested = _Facts(list(facts.positive), list(facts.negative)), list(splits)
        _collect(case, more, nested)
        return self._follows(more, nested, goal, left)

    def _directly(self, facts: _Facts, goal: Goal) -> bool:
        match goal:
            case All(parts):
                return all(self._directly(facts, part) for part in parts)
            case Some(parts):
                return any(self._directly(facts, part) for part in parts)
            case Leaf(node, True):
                return any(self._implies(fact, node) for fact in facts.positive) or any(
                    self._misses(fact, node) for fact in facts.negative
                )
            case Leaf(node, False):
                return any(self._implies(node, fact) for fact in facts.negative) or any(
                    self._excludes(fact, node) for fact in facts.positive
                )
            case Pair(left, op, right, True):
                return any(
                    compared(op, one, other)
                    for one in facts.values(left.text)
                    for other in facts.values(right.text)
                )
            case _:
                return False

    def _implies(self, fact: Node, goal: Node) -> bool:
        """Whether a document for which some value passes ``fact`` has one that passes ``goal``."""
        self._step()
        if fact == goal and _same_types(fact, goal):
            return True
        if not isinstance(goal, Compare | In) or not _same_path(fact, goal):
            return False
        match fact:
            case Compare(_, Op.EQ, value):
                return self._passes(goal, value)
            case In(_, values, patterns):
                known = goal.patterns if isinstance(goal, In) else ()
                return all(pattern in known for pattern in patterns) and all(
                    self._passes(goal, value) for value in values
                )
            case Compare(_, op, value) if isinstance(goal, Compare):
                return _within(op, value, goal.op, goal.value)
            case _:
                return False

    def _misses(self, fact: Node, goal: Node) -> bool:
        """Whether a field that is not there passes: ``{a: {$exists: false}}`` proves ``a == null``."""
        if not isinstance(fact, Exists) or not isinstance(goal, Compare | In) or not _same_path(fact, goal):
            return False
        # Of a longer path nothing at all may be found, not even something that is missing.
        return len(fact.path.segments) == 1 and self._passes(goal, None)

    def _excludes(self, fact: Node, goal: Node) -> bool:
        """Whether ``fact`` makes sure that nothing passes ``goal``: only where there can be one value."""
        if not isinstance(goal, Compare | In) or not _same_path(fact, goal) or goal.path.text != ID_PATH:
            return False
        match fact:
            case Compare(_, Op.EQ, value):
                return type(value) is not Regex and not self._passes(goal, value, unsure=True)
            case In(_, values, ()):
                return all(not self._passes(goal, value, unsure=True) for value in values)
            case _:
                return False

    def _passes(self, goal: Compare | In, value: Value, unsure: bool = False) -> bool:
        """Whether a value (and each value equal to it) passes a test; ``unsure`` if that costs too much."""
        self._step()
        patterns = goal.patterns if isinstance(goal, In) and type(value) is str else ()
        # A pattern may be the caller's own, and cost what it wants.
        if patterns and (len(value) > PATTERN_SUBJECT_MAX or not all(map(is_cheap, patterns))):
            return unsure
        return self._test(goal)(value)

    def _test(self, goal: Compare | In) -> Callable[[Value], bool]:
        """The test of a condition, made once: it may have thousands of values."""
        known = self._tests.get(id(goal))
        if known is None:
            self._step(len(goal.values) // 16 if isinstance(goal, In) else 0)
            known = self._tests[id(goal)] = (goal, value_test(goal))
        return known[1]

    def _step(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps > STEPS_MAX:
            raise _TooLong


def _plainly(query: Goal, goal: Goal) -> bool | None:
    """Whether the goal, one comparison, follows from a query of comparisons only, of which none or the very
    same one is about the goal's path. None: look closer.
    """
    if type(goal) is not Leaf or not goal.positive or type(goal.node) is not Compare:
        return None
    says = False
    for part in query.parts if type(query) is All else (query,):
        if type(part) is not Leaf or not part.positive:
            return None
        fact = part.node
        if type(fact) is not Compare or type(fact.value) is dict:
            return None
        if fact.path.text == goal.node.path.text:
            if fact != goal.node or not _same_types(fact, goal.node):
                return None
            says = True
    return says


def path_text(node: Node) -> str | None:
    """The path a condition is about; None if it is about the whole document."""
    path = getattr(node, "path", None)
    return path.text if isinstance(path, Path) else None


def pinned_values(query: Goal) -> dict[tuple[str, ...], Value]:
    """Fields that the query fixes to one text or number, by their names: what ``get()`` may use."""
    found: dict[tuple[str, ...], Value] = {}
    for leaf in _conjuncts(query):
        if isinstance(leaf, Leaf) and leaf.positive:
            node, value = leaf.node, _single(leaf.node)
            if isinstance(node, Compare | In) and is_pin(value):
                found.setdefault(tuple(node.path.text.split(".")), value)
    return found


def is_pin(value: Value) -> bool:
    """Whether ``get()`` can be made from a value: a text or a number."""
    return isinstance(value, str | int | float) and type(value) is not bool


def pinned_id(query: Goal) -> tuple[Value] | None:
    """The id, if the query says nothing but ``_id == x`` (as ``doc(id)`` does); else None."""
    conjuncts = list(_conjuncts(query))
    if len(conjuncts) != 1 or not isinstance(conjuncts[0], Leaf) or not conjuncts[0].positive:
        return None
    node = conjuncts[0].node
    value = _single(node)
    if not isinstance(node, Compare | In) or node.path.text != ID_PATH or value is None:
        return None
    return None if type(value) is Regex else (value,)


class _TooLong(Exception):
    """The proof takes too many steps."""


@dataclass(slots=True)
class _Facts:
    """What certainly holds for every document: conditions some value passes, and some that none passes."""

    positive: list[Node] = field(default_factory=list)
    negative: list[Node] = field(default_factory=list)

    def values(self, path: str) -> Iterator[Value]:
        """Values of which one certainly stands at the path."""
        for node in self.positive:
            if isinstance(node, Compare | In) and node.path.text == path:
                value = _single(node)
                if value is not None and type(value) is not Regex:
                    yield value


def _single(node: Node) -> Value:
    """The one value a condition allows; None if there are others (or it is null)."""
    match node:
        case Compare(_, Op.EQ, value) | In(_, (value,), ()):
            return value
        case _:
            return None


def _conjuncts(goal: Goal) -> Iterator[Goal]:
    if isinstance(goal, All):
        for part in goal.parts:
            yield from _conjuncts(part)
    else:
        yield goal


def _collect(goal: Goal, facts: _Facts, splits: list[Some]) -> None:
    for part in _conjuncts(goal):
        if isinstance(part, Some):
            if len(part.parts) == 1:
                _collect(part.parts[0], facts, splits)
            else:
                splits.append(part)
        elif isinstance(part, Never):
            splits.append(Some())
        elif isinstance(part, Leaf):
            (facts.positive if part.positive else facts.negative).append(part.node)
            if part.positive:
                facts.positive.extend(_derived(part.node, _WHOLE_DEPTH_MAX))


def _derived(node: Node, depth: int) -> Iterator[Node]:
    """Conditions that follow from one that is about a whole object or an array's element."""
    match node:
        case Compare(path, Op.EQ, dict() as value) if depth and _plain(path):
            for name, item in value.items():
                below = _below(path, name)
                if below is not None and item is not None and type(item) not in (list, Regex):
                    made = Compare(below, Op.EQ, item)
                    yield made
                    yield from _derived(made, depth - 1)
        case ElemMatch(path, child, of_objects) if _plain(path):
            for leaf in _conjuncts(goal_of(child)):
                if isinstance(leaf, Leaf) and leaf.positive and isinstance(leaf.node, Compare | In):
                    moved = _moved(path, leaf.node, of_objects)
                    if moved is not None:
                        yield moved
        case _:
            return


def _moved(path: Path, node: Compare | In, of_objects: bool) -> Node | None:
    """A condition on an array's element as one on the array's path."""
    if _needs_a_value(node) and node.path.text == ("" if not of_objects else node.path.text):
        target = _below(path, node.path.text) if of_objects else path
        if target is not None:
            if isinstance(node, In):
                return In(target, node.values, node.patterns)
            return Compare(target, node.op, node.value)
    return None


def _below(path: Path, name: str) -> Path | None:
    if not name or name.startswith("$") or "\0" in name:
        return None
    text = f"{path.text}.{name}"
    try:
        made = Path(text, split_path(text, InvalidFilter))
    except InvalidFilter:
        return None
    return made if _plain(made) else None


def _plain(path: Path) -> bool:
    """No segment could be the index of an element."""
    return all(index < 0 for _, index in path.segments)


def _to_split(facts: _Facts, goal: Goal) -> In | None:
    """An ``in`` of a few values that may be taken apart where a goal has alternatives of its own."""
    if not isinstance(goal, Some):
        return None
    paths = {path for leaf in leaves_of(goal) for path in _paths(leaf)}
    for node in facts.positive:
        if not isinstance(node, In) or node.patterns or node.path.text not in paths:
            continue
        if 1 < len(node.values) <= SPLIT_VALUES_MAX:
            return node
    return None


def _paths(leaf: Leaf | Pair | Never) -> tuple[str, ...]:
    match leaf:
        case Leaf(node):
            text = path_text(node)
            return () if text is None else (text,)
        case Pair(left, _, right):
            return (left.text, right.text)
        case _:
            return ()


def _mentions(split: Some, paths: set[str]) -> bool:
    """Whether an alternative says something about a field the goal is about (or one around it)."""
    return any(
        path == known or path.startswith(known + ".")
        for leaf in leaves_of(split)
        for known in _paths(leaf)
        for path in paths
    )


def _same_path(fact: Node, goal: Node) -> bool:
    return path_text(fact) == path_text(goal) is not None


def _same_types(fact: Node, goal: Node) -> bool:
    """Python's ``1 == True`` must not make two conditions the same."""
    match fact, goal:
        case Compare(_, _, one), Compare(_, _, other):
            return equals(one, other)
        case In(), In():
            return False  # Compared value by value instead.
        case _:
            return repr(fact) == repr(goal)


def _needs_a_value(fact: Node) -> bool:
    """Whether the condition can only hold where something stands at the path."""
    match fact:
        case Compare(_, _, value):
            return value is not None
        case In(_, values, _):
            return not any(value is None for value in values)
        case _:
            return False


def _within(op: Op, value: Value, goal_op: Op, goal_value: Value) -> bool:
    """Whether what is above (or below) ``value`` is also above (or below) ``goal_value``."""
    bracket = rank(value)
    if bracket not in _ORDERED or rank(goal_value) != bracket or _is_nan(value) or _is_nan(goal_value):
        return False
    mine, wanted = order_key(value), order_key(goal_value)
    touching = goal_op in (Op.GTE, Op.LTE) or op in (Op.GT, Op.LT)
    if op in _UP and goal_op in _UP:
        return mine > wanted or (mine == wanted and touching)
    if op in _DOWN and goal_op in _DOWN:
        return mine < wanted or (mine == wanted and touching)
    return False


def _is_nan(value: Value) -> bool:
    return bool(value != value)
