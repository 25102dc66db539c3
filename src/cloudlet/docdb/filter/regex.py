"""Regular expressions: from the SDKs' dialect to Python's, and what a search may cost.

Python's engine backtracks and holds the interpreter while it does, so a pattern is run in the server's own
process only if the number of ways it can match is bounded by a small number (``cheap``). All others run in a
worker process that can be killed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from re import _constants as _c  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

from cloudlet.docdb.values import Regex
from cloudlet.model.errors import InvalidFilter

PATTERN_LENGTH_MAX: Final = 1_000
_WAYS_MAX: Final = 256
_REPEAT_MAX: Final = 64
_FLAGS: Final = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
_LEADING_ANYTHING: Final = re.compile(r"(?:\.\*\??)+(?![?*+{])")
_POSIX_CLASS: Final = re.compile(r"\[:(\^?\w+):\]")
_POSIX_CLASSES: Final = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "blank": r" \t",
    "word": r"\w",
    "xdigit": "0-9a-fA-F",
    "punct": r"!-/:-@\[-`{-~",
    "cntrl": r"\x00-\x1f\x7f",
    "print": " -~",
    "graph": "!-~",
}
_NAMED_GROUP: Final = re.compile(r"(?<!\\)\(\?<(?![=!])")


@lru_cache(maxsize=512)
def compile_regex(regex: Regex) -> re.Pattern[str]:
    """The compiled pattern. Raises InvalidFilter if it is too long or not understood."""
    pattern = _translated(regex)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(pattern, _flags(regex))
    except (re.error, RecursionError, OverflowError, ValueError) as exc:
        raise InvalidFilter(
            f"the regular expression {regex.pattern[:80]!r} is not understood: {exc}"
        ) from exc


@lru_cache(maxsize=512)
def is_cheap(regex: Regex) -> bool:
    """Whether every search takes time that grows at most linearly with the text, with a small factor."""
    compile_regex(regex)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = _parser.parse(_translated(regex), _flags(regex))
    items = list(parsed)
    if items and _is_run(items[-1]):
        items.pop()  # A run at the end takes what it gets and never has to be tried again.
    budget = _Cost(anchored="m" not in regex.options and items[:1] == [(_c.AT, _c.AT_BEGINNING)])
    # Each way costs at least as many steps as the pattern is wide.
    return budget.ways(items) * max(1, int(parsed.getwidth()[0])) <= _WAYS_MAX


def literal_prefix(regex: Regex) -> str:
    """Text that everything matched begins with, or nothing. Only for case-sensitive patterns after ``^``."""
    if regex.options or not regex.pattern.startswith("^") or "|" in regex.pattern:
        return ""
    match = re.match(r"\^([\w ,:/@#%=<>~`'\"-]*)", regex.pattern)
    if match is None:
        return ""
    prefix = match.group(1)
    rest = regex.pattern[match.end() :]
    return prefix[:-1] if rest[:1] in ("*", "?", "{", "+") else prefix


def _translated(regex: Regex) -> str:
    if len(regex.pattern) > PATTERN_LENGTH_MAX:
        raise InvalidFilter(f"a regular expression may have {PATTERN_LENGTH_MAX} characters")
    pattern = regex.pattern
    if start := _LEADING_ANYTHING.match(pattern):
        # Whether a search succeeds does not depend on it, and it would be tried at every position.
        pattern = pattern[start.end() :]
    # Python would read a POSIX class as the letters of its name.
    pattern = _POSIX_CLASS.sub(_posix_class, pattern)
    return _NAMED_GROUP.sub("(?P<", pattern)


def _posix_class(found: re.Match[str]) -> str:
    name = found.group(1)
    if name not in _POSIX_CLASSES:
        raise InvalidFilter(f"the class [:{name[:40]}:] of a regular expression is not understood")
    return _POSIX_CLASSES[name]


def _flags(regex: Regex) -> int:
    flags = 0
    for letter in regex.options:
        flags |= _FLAGS.get(letter, 0)
    # Character classes mean ASCII there; but with ASCII on, Python would also fold only ASCII letters.
    if "i" not in regex.options or regex.pattern.isascii():
        flags |= re.ASCII
    return flags


def _is_single(body: Any) -> bool:
    return len(body) == 1 and body[0][0] in (_c.LITERAL, _c.NOT_LITERAL, _c.ANY, _c.IN)


def _is_run(item: Any) -> bool:
    """An unlimited repeat of one character or class."""
    code, argument = item
    return code in (_c.MAX_REPEAT, _c.MIN_REPEAT) and argument[0] <= 1 and _is_single(argument[2])


class _Cost:
    """Upper bound of the ways a pattern can match at one position."""

    def __init__(self, anchored: bool) -> None:
        self._runs_left = 1 if anchored else 0

    def ways(self, items: Iterable[Any]) -> int:
        total = 1
        for code, argument in items:
            total *= self._item(code, argument)
            if total > _WAYS_MAX:
                return _WAYS_MAX + 1
        return total

    def _item(self, code: Any, argument: Any) -> int:
        if code in (_c.LITERAL, _c.NOT_LITERAL, _c.ANY, _c.IN, _c.AT):
            return 1
        if code is _c.BRANCH:
            return sum(self.ways(branch) for branch in argument[1])
        if code is _c.SUBPATTERN:
            return self.ways(argument[-1])
        if code in (_c.MAX_REPEAT, _c.MIN_REPEAT):
            return self._repeat(*argument)
        return _WAYS_MAX + 1  # Back references, look-around and whatever comes later.

    def _repeat(self, low: int, high: int, body: Any) -> int:
        if high > _REPEAT_MAX:
            # One run of single characters in an anchored search: one pass forward, one back.
            self._runs_left -= 1
            return 1 if _is_single(body) and self._runs_left >= 0 else _WAYS_MAX + 1
        runs_left = self._runs_left
        if high > 1:
            self._runs_left = 0
        each = self.ways(body)
        if high > 1:
            self._runs_left = runs_left
        if each == 1:
            return int(high) - int(low) + 1
        return sum(min(each**count, _WAYS_MAX + 1) for count in range(low, high + 1))
