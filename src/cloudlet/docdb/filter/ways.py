"""Ways through a document, from a path and the test of what stands at its end to a matcher.

Each condition has two: a short one for documents that have objects only along the path, and the general one
of ``paths.reaches`` as soon as an array stands on the way or at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cloudlet.docdb.filter.ast import Path
from cloudlet.docdb.paths import Test, reaches
from cloudlet.docdb.values import MISSING, Document, Value

Matcher: TypeAlias = Callable[[Document], bool]


def match_equal(path: Path, operand: Value) -> Matcher:
    """Equality that Python's own ``==`` decides, also for the elements of an array."""
    if len(path.segments) == 1:
        return match_field(path.text, operand)

    def leaf(value: Value) -> bool:
        return operand in value if type(value) is list else value == operand

    general = match_generally(path, leaf, lambda value: bool(value == operand))
    names = [name for name, _ in path.segments]
    if len(names) == 2:
        first, second = names

        def match_two(document: Document) -> bool:
            value = document.get(first)
            if type(value) is dict:
                value = value.get(second)
                return operand in value if type(value) is list else value == operand
            return type(value) is list and general(document)

        return match_two
    return match_along(path, lambda value: bool(value == operand), general)


def match_field(name: str, operand: Value) -> Matcher:
    """``match_equal`` for a path of one segment."""

    def match_one(document: Document) -> bool:
        value = document.get(name)
        return operand in value if type(value) is list else value == operand

    return match_one


def match_along(path: Path, test: Test, general: Matcher) -> Matcher:
    """``test`` what stands at the path, ``general`` if that is an array or an array stands on the way."""
    names = [name for name, _ in path.segments]
    if len(names) == 1:
        (name,) = names

        def match_one(document: Document) -> bool:
            value = document.get(name, MISSING)
            return general(document) if type(value) is list else test(value)

        return match_one
    if len(names) == 2:
        first, second = names

        def match_two(document: Document) -> bool:
            value = document.get(first)
            if type(value) is dict:
                value = value.get(second, MISSING)
                return general(document) if type(value) is list else test(value)
            return general(document) if type(value) is list else test(MISSING)

        return match_two

    def match(document: Document) -> bool:
        value: Value = document
        for name in names:
            if type(value) is not dict:
                return general(document) if type(value) is list else test(MISSING)
            value = value.get(name, MISSING)
        return general(document) if type(value) is list else test(value)

    return match


def match_generally(path: Path, leaf: Test, element: Test) -> Matcher:
    """``leaf`` and ``element`` tests as in ``paths.reaches``, with arrays anywhere."""
    segments = path.segments
    if not segments:
        return leaf
    return lambda document: reaches(document, segments, 0, leaf, element)


def expanded(test: Test) -> Test:
    """The test of an array's elements and of the array itself."""

    def match(value: Value) -> bool:
        if type(value) is list:
            for item in value:
                if test(item):
                    return True
        return test(value)

    return match


def match_all(tests: list[Test]) -> Test:
    """All tests pass."""
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)

    def every(value: Value) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost a frame per document
            if not test(value):
                return False
        return True

    return every


def match_any(tests: list[Test]) -> Test:
    """One test passes."""
    if len(tests) == 1:
        return tests[0]

    def some(value: Value) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost a frame per document
            if test(value):
                return True
        return False

    return some
