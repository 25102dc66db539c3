"""Arrays: parts of them, and numbers computed from their elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, zip_longest
from typing import Final

from cloudlet.docdb.numeric import INT32_MAX
from cloudlet.docdb.pipeline.expressions.base import (
    ITEMS_MAX,
    Builder,
    Compiler,
    Expression,
    Variables,
    binary,
    checked_names,
    full_key,
    keyword,
    kind_name,
    nullish,
    refused,
    shown,
    spend,
    truthy,
    unary,
    variadic,
)
from cloudlet.docdb.pipeline.expressions.numbers import (
    Deviation,
    integral,
    number_kind,
    total,
    whole_number,
)
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.values import MISSING, Document, Value
from cloudlet.model.errors import QueryTooCostly


def element(array: Value, position: Value) -> Value:
    """``$arrayElemAt``: negative positions count from the end; MISSING outside."""
    if nullish(array) or nullish(position):
        return None
    if type(array) is not list:
        raise refused(28689, f"$arrayElemAt's first argument must be an array, but is {kind_name(array)}")
    if not number_kind(position):
        raise refused(
            28690, f"$arrayElemAt's second argument must be a numeric value, but is {kind_name(position)}"
        )
    at = integral(position)
    if at is None:
        raise refused(28691, f"$arrayElemAt's second argument must be a 32-bit integer: {shown(position)}")
    return array[at] if -len(array) <= at < len(array) else MISSING


def _end(name: str, at: int) -> Callable[[Value], Value]:
    def pick(array: Value) -> Value:
        if nullish(array):
            return None
        if type(array) is not list:
            raise refused(28689, f"{name}'s argument must be an array, but is {kind_name(array)}")
        return array[at] if array else MISSING

    return pick


def _concatenated(*arrays: Value) -> Value:
    if any(nullish(array) for array in arrays):
        return None
    for array in arrays:
        if type(array) is not list:
            raise refused(28664, f"$concatArrays only supports arrays, not {kind_name(array)}")
    if sum(map(len, arrays)) > ITEMS_MAX:
        raise QueryTooCostly("the result of $concatArrays is too large; make it smaller before")
    return list(chain.from_iterable(arrays))


def _index_of(array: Value, wanted: Value, start: Value = 0, end: Value = None) -> Value:
    if nullish(array):
        return None
    if type(array) is not list:
        raise refused(
            40090, f"$indexOfArray requires an array as a first argument, found: {kind_name(array)}"
        )
    low, high = bounds("$indexOfArray", start, end, len(array))
    key = full_key(wanted)
    for position in range(low, high):
        if full_key(array[position]) == key:
            return position
    return -1


def bounds(name: str, start: Value, end: Value, length: int) -> tuple[int, int]:
    """The positions to look at, from ``start`` up to ``end`` (None: all). Raises InvalidFilter."""
    found = []
    for value, what in ((start, "starting"), (length if end is None else end, "ending")):
        at = integral(value)
        if at is None:
            raise refused(
                40096, f"{name} requires an integral {what} index, found a value of type: {kind_name(value)}"
            )
        if at < 0:
            raise refused(40097, f"{name} requires a nonnegative {what} index, found: {at}")
        found.append(at)
    return found[0], min(found[1], length)


def _range(start: Value, end: Value, step: Value = 1) -> Value:
    numbers = []
    for value, what in ((start, "starting value"), (end, "ending value"), (step, "step value")):
        if not number_kind(value):
            raise refused(34443, f"$range requires a numeric {what}, found value of type: {kind_name(value)}")
        numbers.append(whole_number(value, 34444, f"the {what} of $range"))
    if not numbers[2]:
        raise refused(34449, "$range requires a non-zero step value")
    found = range(*numbers)
    if len(found) > ITEMS_MAX:
        raise QueryTooCostly(f"$range would make {len(found)} numbers; the limit is {ITEMS_MAX}")
    return list(found)


def _reversed(array: Value) -> Value:
    if nullish(array):
        return None
    if type(array) is not list:
        raise refused(
            34435, f"The argument to $reverseArray must be an array, but was of type: {kind_name(array)}"
        )
    return array[::-1]


def _size(array: Value) -> Value:
    if type(array) is not list:
        raise refused(17124, f"The argument to $size must be an array, but was of type: {kind_name(array)}")
    return len(array)


def _slice(array: Value, *numbers: Value) -> Value:
    if nullish(array) or any(nullish(number) for number in numbers):
        return None
    if type(array) is not list:
        raise refused(28724, f"First argument to $slice must be an array, but is of type: {kind_name(array)}")
    wanted = []
    for number, which in zip(numbers, ("Second", "Third"), strict=False):
        if not number_kind(number):
            raise refused(
                28725,
                f"{which} argument to $slice must be a numeric value, but is of type: {kind_name(number)}",
            )
        wanted.append(whole_number(number, 28726, f"{which} argument to $slice"))
    if len(wanted) == 1:
        count = wanted[0]
        return array[:count] if count >= 0 else array[count:]
    position, count = wanted
    if count <= 0:
        raise refused(28729, f"Third argument to $slice must be positive: {count}")
    start = max(0, len(array) + position) if position < 0 else position
    return array[start : start + count]


def _zip(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("inputs",), ("useLongestLength", "defaults"))
    if type(given["inputs"]) is not list or not given["inputs"]:
        raise refused(34461, f"inputs must be an array of expressions, found: {kind_name(given['inputs'])}")
    longest = given.get("useLongestLength", False)
    if type(longest) is not bool:
        raise refused(34463, f"useLongestLength must be a bool, found: {kind_name(longest)}")
    inputs = [compiler.compile(item) for item in given["inputs"]]
    defaults = None
    if "defaults" in given:
        if type(given["defaults"]) is not list:
            raise refused(
                34462, f"defaults must be an array of expressions, found: {kind_name(given['defaults'])}"
            )
        if not longest:
            raise refused(34466, "cannot specify defaults unless useLongestLength is true")
        if len(given["defaults"]) != len(inputs):
            raise refused(34467, "defaults and inputs must have the same length")
        defaults = [compiler.compile(item) for item in given["defaults"]]

    def evaluate(document: Document, variables: Variables) -> Value:
        arrays = [item(document, variables) for item in inputs]
        if any(nullish(array) for array in arrays):
            return None
        for array in arrays:
            if type(array) is not list:
                raise refused(34468, f"$zip found a non-array expression in input: {kind_name(array)}")
        if not longest:
            return [list(group) for group in zip(*arrays, strict=False)]
        spare = (
            [_or_null(item(document, variables)) for item in defaults] if defaults else [None] * len(arrays)
        )
        spend(variables, sum(map(len, arrays)))
        return [
            [spare[at] if item is MISSING else item for at, item in enumerate(group)]
            for group in zip_longest(*arrays, fillvalue=MISSING)
        ]

    return evaluate


def _or_null(value: Value) -> Value:
    return None if value is MISSING else value


def _sort_array(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("input", "sortBy"))
    source, order = compiler.compile(given["input"]), given["sortBy"]
    if type(order) is dict:
        if not order:
            raise refused(2, "$sortArray: sortBy must name at least one field")
        arrange = _by_fields(order)
    elif number_kind(order) and order in (1, -1):
        arrange = _by_value(order == -1)
    else:
        raise refused(2, f"$sortArray: sortBy must be 1, -1 or an object, found: {shown(order)}")

    def evaluate(document: Document, variables: Variables) -> Value:
        items = source(document, variables)
        if nullish(items):
            return None
        if type(items) is not list:
            raise refused(
                2942504,
                f"The input argument to $sortArray must be an array, but was of type: {kind_name(items)}",
            )
        spend(variables, len(items))
        return arrange(items)

    return evaluate


def _by_fields(order: Document) -> Callable[[list[Value]], list[Value]]:
    sort = parse_sort(order)

    def arrange(items: list[Value]) -> list[Value]:
        made = list(items)
        # What is no object has none of the fields.
        sort_documents(made, sort, lambda item: item if type(item) is dict else {})
        return made

    return arrange


def _by_value(descending: bool) -> Callable[[list[Value]], list[Value]]:
    return lambda items: sorted(items, key=full_key, reverse=descending)


def count_wanted(name: str, value: Value) -> int:
    """The ``n`` of ``$firstN`` and its like. Raises InvalidFilter."""
    found = integral(value)
    if found is None or not 0 < found <= INT32_MAX:
        raise refused(5787908, f"'n' of {name} must be a positive integer, found: {shown(value)}")
    return found


def _some(name: str, choose: Callable[[list[Value], int], list[Value]]) -> Builder:
    def evaluate(input: Value, n: Value) -> Value:
        wanted = count_wanted(name, n)
        if type(input) is not list:
            raise refused(5788200, f"the input of {name} must be an array, found: {kind_name(input)}")
        return choose(input, wanted)

    return keyword(evaluate, ("input", "n"))


def extremes(items: list[Value], count: int, largest: bool) -> list[Value]:
    """The smallest or largest values in order; null does not count."""
    return sorted((item for item in items if not nullish(item)), key=full_key, reverse=largest)[:count]


def over_values(function: Callable[[list[Value]], Value]) -> Builder:
    """An operator on all operands, or on the elements of the only one if that is an array."""

    def evaluate(*values: Value) -> Value:
        if len(values) == 1 and type(values[0]) is list:
            return function(values[0])
        return function(list(values))

    return variadic(evaluate)


def extreme(values: list[Value], largest: bool) -> Value:
    """The smallest or largest value; null and missing do not count."""
    present = [value for value in values if not nullish(value)]
    if not present:
        return None
    return max(present, key=full_key) if largest else min(present, key=full_key)


def _deviation(values: list[Value], sample: bool) -> Value:
    made = Deviation()
    for value in values:
        made.add(value)
    return made.result(sample)


def _all_true(name: str, code: int, test: Callable[[list[bool]], bool]) -> Builder:
    def evaluate(array: Value) -> Value:
        if type(array) is not list:
            raise refused(code, f"{name}'s argument must be an array, but is {kind_name(array)}")
        return test([truthy(item) for item in array])

    return unary(evaluate)


OPERATORS: Final[Mapping[str, Builder]] = {
    "$allElementsTrue": _all_true("$allElementsTrue", 17040, all),
    "$anyElementTrue": _all_true("$anyElementTrue", 17041, any),
    "$arrayElemAt": binary(element),
    "$concatArrays": variadic(_concatenated),
    "$first": unary(_end("$first", 0)),
    "$firstN": _some("$firstN", lambda items, n: items[:n]),
    "$indexOfArray": variadic(_index_of, 2, 4),
    "$isArray": unary(lambda value: type(value) is list),
    "$last": unary(_end("$last", -1)),
    "$lastN": _some("$lastN", lambda items, n: items[-n:]),
    "$maxN": _some("$maxN", lambda items, n: extremes(items, n, largest=True)),
    "$minN": _some("$minN", lambda items, n: extremes(items, n, largest=False)),
    "$range": variadic(_range, 2, 3),
    "$reverseArray": unary(_reversed),
    "$size": unary(_size),
    "$slice": variadic(_slice, 2, 3),
    "$sortArray": _sort_array,
    "$zip": _zip,
    "$sum": over_values(lambda values: total(values).result()),
    "$avg": over_values(lambda values: total(values).mean()),
    "$min": over_values(lambda values: extreme(values, largest=False)),
    "$max": over_values(lambda values: extreme(values, largest=True)),
    "$stdDevPop": over_values(lambda values: _deviation(values, sample=False)),
    "$stdDevSamp": over_values(lambda values: _deviation(values, sample=True)),
}
"""Arrays."""
