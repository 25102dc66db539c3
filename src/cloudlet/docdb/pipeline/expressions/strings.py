"""Text: parts, positions in bytes or code points, case of ASCII letters, and regular expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from cloudlet.docdb.filter.regex import compile_regex, is_cheap
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX, Overrun
from cloudlet.docdb.pipeline.expressions.arrays import bounds
from cloudlet.docdb.pipeline.expressions.base import (
    BUDGET,
    Builder,
    Compiler,
    Constant,
    Expression,
    Variables,
    binary,
    keyword,
    kind_name,
    nullish,
    refused,
    unary,
    variadic,
)
from cloudlet.docdb.pipeline.expressions.convert import date_text, number_text
from cloudlet.docdb.pipeline.expressions.numbers import as_float, integral, number_kind
from cloudlet.docdb.values import Document, Regex, Value

_UPPER: Final = {code: code - 32 for code in range(97, 123)}
_LOWER: Final = {code: code + 32 for code in range(65, 91)}
_BLANKS: Final = "\0 \t\n\v\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_OPTIONS: Final = frozenset("imsxu")


def as_text(name: str, value: Value) -> str:
    """A value where text is wanted: numbers and dates are written out, null is empty."""
    if type(value) is str:
        return value
    if nullish(value):
        return ""
    if number_kind(value):
        return number_text(value)
    if type(value) is datetime:
        return date_text(value)
    raise refused(16007, f"{name}: can't convert from {kind_name(value)} to String")


def _concat(*values: Value) -> Value:
    if any(nullish(value) for value in values):
        return None
    for value in values:
        if type(value) is not str:
            raise refused(16702, f"$concat only supports strings, not {kind_name(value)}")
    return "".join(values)


def _lower(value: Value) -> Value:
    return as_text("$toLower", value).translate(_LOWER)


def _upper(value: Value) -> Value:
    return as_text("$toUpper", value).translate(_UPPER)


def _compare_ignoring_case(left: Value, right: Value) -> Value:
    one, two = (as_text("$strcasecmp", value).translate(_UPPER) for value in (left, right))
    return (one > two) - (one < two)


def _length(name: str, code: int, measure: Callable[[str], int]) -> Builder:
    def evaluate(value: Value) -> Value:
        if type(value) is not str:
            raise refused(code, f"{name} requires a string argument, found: {kind_name(value)}")
        return measure(value)

    return unary(evaluate)


def _split(text: Value, separator: Value) -> Value:
    if nullish(text) or nullish(separator):
        return None
    if type(text) is not str:
        raise refused(40085, f"$split requires a string as a first argument, found: {kind_name(text)}")
    if type(separator) is not str:
        raise refused(40086, f"$split requires a string as a second argument, found: {kind_name(separator)}")
    if not separator:
        raise refused(40087, "$split requires a non-empty separator")
    return text.split(separator)


def _bytes_part(name: str) -> Builder:
    def evaluate(text: Value, start: Value, length: Value) -> Value:
        raw = as_text(name, text).encode()
        at, count = (
            _position(name, value, 16034, what) for value, what in ((start, "starting"), (length, "length"))
        )
        if at < 0:
            if name == "$substr":
                return ""
            raise refused(50752, f"{name}: starting index must be non-negative (got: {at})")
        end = len(raw) if count < 0 else min(at + count, len(raw))
        if _continues(raw, at):
            raise refused(28656, f"{name}: Invalid range, starting index is a UTF-8 continuation byte.")
        if _continues(raw, end):
            raise refused(
                28657, f"{name}: Invalid range, ending index is in the middle of a UTF-8 character."
            )
        return raw[at:end].decode()

    return variadic(evaluate, 3, 3)


def _continues(raw: bytes, at: int) -> bool:
    return at < len(raw) and raw[at] & 0xC0 == 0x80


def _position(name: str, value: Value, code: int, what: str) -> int:
    if not number_kind(value):
        raise refused(code, f"{name}: {what} index must be a numeric type (is BSON type {kind_name(value)})")
    # A fraction is cut off.
    number = as_float(value)
    if not math.isfinite(number):
        raise refused(code, f"{name}: {what} index must be finite")
    return int(number)


def _points_part(text: Value, start: Value, length: Value) -> Value:
    given = as_text("$substrCP", text)
    found = []
    for value, what, code in ((start, "starting index", 34450), (length, "length", 34452)):
        if not number_kind(value):
            raise refused(code, f"$substrCP: {what} must be a numeric type (is BSON type {kind_name(value)})")
        number = integral(value)
        if number is None:
            raise refused(
                code + 1, f"$substrCP: {what} cannot be represented as a 32-bit integral value: {value}"
            )
        if number < 0:
            raise refused(
                34455 if code == 34450 else 34454, f"$substrCP: the {what} must be a nonnegative integer."
            )
        found.append(number)
    return given[found[0] : found[0] + found[1]]


def _index_of(name: str, encode: Callable[[str], str | bytes]) -> Builder:
    def evaluate(text: Value, wanted: Value, start: Value = 0, end: Value = None) -> Value:
        if nullish(text):
            return None
        if type(text) is not str:
            raise refused(40093, f"{name} requires a string as the first argument, found: {kind_name(text)}")
        if type(wanted) is not str:
            raise refused(
                40094, f"{name} requires a string as the second argument, found: {kind_name(wanted)}"
            )
        hay, needle = encode(text), encode(wanted)
        low, high = bounds(name, start, end, len(hay))
        return hay.find(needle, low, high) if low <= high else -1  # type: ignore[arg-type]

    return variadic(evaluate, 2, 4)


def _trimming(name: str, trim: Callable[[str, str], str]) -> Builder:
    def evaluate(input: Value, chars: Value = _BLANKS) -> Value:
        if nullish(input) or nullish(chars):
            return None
        if type(input) is not str:
            raise refused(50699, f"{name} requires its input to be a string, got {kind_name(input)}")
        if type(chars) is not str:
            raise refused(50700, f"{name} requires 'chars' to be a string, got {kind_name(chars)}")
        return trim(input, chars)

    return keyword(evaluate, ("input",), ("chars",))


def _replacing(name: str, count: int) -> Builder:
    def evaluate(input: Value, find: Value, replacement: Value) -> Value:
        for value, what in ((input, "input"), (find, "find"), (replacement, "replacement")):
            if not nullish(value) and type(value) is not str:
                raise refused(51746, f"{name} requires that '{what}' be a string, found: {kind_name(value)}")
        if nullish(input) or nullish(find) or nullish(replacement):
            return None
        return input.replace(find, replacement, count)

    return keyword(evaluate, ("input", "find", "replacement"))


# Regular expressions.


def _regex(name: str, finish: Callable[[re.Pattern[str] | None, str], Value]) -> Builder:
    """An operator of ``{input, regex, options}``. Without text or pattern ``finish`` gets None."""

    def build(compiler: Compiler, _name: str, operand: Value) -> Expression:
        given = compiler.named(name, operand, ("input", "regex"), ("options",))
        source, pattern = given["input"], given["regex"]
        options = given.get("options", Constant(None))
        compiler.facts.patterned = True
        fixed: re.Pattern[str] | None = None
        if isinstance(pattern, Constant) and isinstance(options, Constant):
            wanted = _wanted(name, pattern.value, options.value)
            fixed = compile_regex(wanted) if wanted else None
            compiler.facts.costly = compiler.facts.costly or (wanted is not None and not is_cheap(wanted))
        else:
            compiler.facts.costly = True

        def evaluate(document: Document, variables: Variables) -> Value:
            text = source(document, variables)
            found = fixed
            if found is None:
                wanted = _wanted(name, pattern(document, variables), options(document, variables))
                found = compile_regex(wanted) if wanted else None
            if nullish(text):
                return finish(None, "")
            if type(text) is not str:
                raise refused(51104, f"{name} needs 'input' to be of type string, found: {kind_name(text)}")
            if len(text) > PATTERN_SUBJECT_MAX and BUDGET in variables:
                raise Overrun("a regular expression on a long text")
            return finish(found, text)

        return evaluate

    return build


def _wanted(name: str, pattern: Value, options: Value) -> Regex | None:
    if nullish(pattern):
        return None
    if type(pattern) is not str and type(pattern) is not Regex:
        raise refused(
            51105, f"{name} needs 'regex' to be of type string or regex, found: {kind_name(pattern)}"
        )
    if not nullish(options) and type(options) is not str:
        raise refused(51106, f"{name} needs 'options' to be of type string, found: {kind_name(options)}")
    letters = options or "" if not nullish(options) else ""
    if not set(letters) <= _OPTIONS:
        raise refused(51108, f"{name} invalid flag in regex options: {letters[:20]}")
    if type(pattern) is Regex:
        if pattern.options and letters:
            raise refused(
                51107, f"{name}: found regex option(s) specified in both 'regex' and 'options' fields"
            )
        pattern, letters = pattern.pattern, pattern.options or letters
    if "\0" in pattern:
        raise refused(51109, f"{name}: regular expression cannot contain an embedded null byte")
    # The empty group keeps the beginning of the pattern as it is: here it matters what is found, not only
    # whether something is.
    return Regex(f"(?:){pattern}", "".join(sorted(set(letters))))


def _described(match: re.Match[str]) -> Document:
    return {"match": match.group(), "idx": match.start(), "captures": list(match.groups())}


def _find(pattern: re.Pattern[str] | None, text: str) -> Value:
    match = pattern.search(text) if pattern else None
    return _described(match) if match else None


def _find_all(pattern: re.Pattern[str] | None, text: str) -> Value:
    return [_described(match) for match in pattern.finditer(text)] if pattern else []


def _is_match(pattern: re.Pattern[str] | None, text: str) -> Value:
    return pattern is not None and pattern.search(text) is not None


def _encoded(text: str) -> bytes:
    return text.encode()


def _unchanged(text: str) -> str:
    return text


OPERATORS: Final[Mapping[str, Builder]] = {
    "$concat": variadic(_concat),
    "$indexOfBytes": _index_of("$indexOfBytes", _encoded),
    "$indexOfCP": _index_of("$indexOfCP", _unchanged),
    "$ltrim": _trimming("$ltrim", str.lstrip),
    "$regexFind": _regex("$regexFind", _find),
    "$regexFindAll": _regex("$regexFindAll", _find_all),
    "$regexMatch": _regex("$regexMatch", _is_match),
    "$replaceAll": _replacing("$replaceAll", -1),
    "$replaceOne": _replacing("$replaceOne", 1),
    "$rtrim": _trimming("$rtrim", str.rstrip),
    "$split": binary(_split),
    "$strcasecmp": binary(_compare_ignoring_case),
    "$strLenBytes": _length("$strLenBytes", 34473, lambda text: len(text.encode())),
    "$strLenCP": _length("$strLenCP", 34471, len),
    "$substr": _bytes_part("$substr"),
    "$substrBytes": _bytes_part("$substrBytes"),
    "$substrCP": variadic(_points_part, 3, 3),
    "$toLower": unary(_lower),
    "$toUpper": unary(_upper),
    "$trim": _trimming("$trim", str.strip),
}
"""Text."""
