"""Dates: their parts in a time zone, arithmetic with calendar units, and text."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    Compiler,
    Constant,
    Expression,
    Variables,
    keyword,
    kind_name,
    nullish,
    refused,
    shown,
)
from cloudlet.docdb.pipeline.expressions.dateparse import (
    month_name,
    parse_date,
    parse_with_format,
    time_zone,
    to_utc,
)
from cloudlet.docdb.pipeline.expressions.numbers import LONG, integral, whole
from cloudlet.docdb.values import Document, ObjectId, Value, date_from_ms, date_to_ms
from cloudlet.model.errors import InvalidFilter

_PART_MAX: Final = 10**9
_FIXED_MS: Final = {"millisecond": 1, "second": 1_000, "minute": 60_000, "hour": 3_600_000}
_DAYS: Final = {"day": 1, "week": 7}
_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_REFERENCE: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - local in whatever zone is asked for
"""Where the bins of ``$dateTrunc`` begin."""


def as_date(value: Value) -> datetime:
    """A date, or the time an ObjectId was made. Raises InvalidFilter."""
    if type(value) is datetime:
        return value
    if type(value) is ObjectId:
        return date_from_ms(int.from_bytes(value.raw[:4], "big") * 1000, InvalidFilter)
    raise refused(16006, f"can't convert from BSON type {kind_name(value)} to Date")


def local(value: datetime, zone: tzinfo) -> datetime:
    """The date in a zone, without saying which. Raises InvalidFilter outside the years 1 to 9999."""
    if zone is UTC:
        return value.replace(tzinfo=None)
    try:
        return value.astimezone(zone).replace(tzinfo=None)
    except OverflowError as exc:
        raise refused(2, "the date lies outside the years 1 to 9999 in this time zone") from exc


def instant(value: datetime, zone: tzinfo) -> datetime:
    """The reverse of ``local``."""
    try:
        return to_utc(value.replace(tzinfo=zone))
    except (OverflowError, ValueError) as exc:
        raise _outside() from exc


# Parts.


def _week(day: datetime) -> int:
    return int(day.strftime("%U"))


_PARTS: Final[dict[str, Callable[[datetime], int]]] = {
    "$year": lambda day: day.year,
    "$month": lambda day: day.month,
    "$dayOfMonth": lambda day: day.day,
    "$dayOfYear": lambda day: day.timetuple().tm_yday,
    "$dayOfWeek": lambda day: day.isoweekday() % 7 + 1,
    "$hour": lambda day: day.hour,
    "$minute": lambda day: day.minute,
    "$second": lambda day: day.second,
    "$millisecond": lambda day: day.microsecond // 1000,
    "$week": _week,
    "$isoWeek": lambda day: day.isocalendar().week,
    "$isoWeekYear": lambda day: day.isocalendar().year,
    "$isoDayOfWeek": lambda day: day.isoweekday(),
}


def _part(function: Callable[[datetime], int], long: bool = False) -> Builder:
    """``{$op: date}``, ``{$op: [date]}`` or ``{$op: {date, timezone}}``."""

    def build(compiler: Compiler, name: str, operand: Value) -> Expression:
        if type(operand) is dict and not next(iter(operand), "$").startswith("$"):
            given = compiler.named(name, operand, ("date",), ("timezone",))
            source, zone = given["date"], given.get("timezone")
        else:
            (source,), zone = compiler.arguments(name, operand, 1, 1), None

        def evaluate(document: Document, variables: Variables) -> Value:
            value = source(document, variables)
            place: Value = "UTC" if zone is None else zone(document, variables)
            if nullish(value) or nullish(place):
                return None
            found = function(local(as_date(value), time_zone(place)))
            return whole(found, LONG) if long else found

        return evaluate

    return build


def _to_parts(date: Value, timezone: Value = "UTC", iso8601: Value = False) -> Value:
    if nullish(date) or nullish(timezone) or nullish(iso8601):
        return None
    if type(iso8601) is not bool:
        raise refused(40521, f"iso8601 must evaluate to a bool, found {kind_name(iso8601)}")
    day = local(as_date(date), time_zone(timezone))
    clock = {
        "hour": day.hour,
        "minute": day.minute,
        "second": day.second,
        "millisecond": day.microsecond // 1000,
    }
    if iso8601:
        year, week, weekday = day.isocalendar()
        return {"isoWeekYear": year, "isoWeek": week, "isoDayOfWeek": weekday, **clock}
    return {"year": day.year, "month": day.month, "day": day.day, **clock}


def _from_parts(compiler: Compiler, name: str, operand: Value) -> Expression:
    clock = ("hour", "minute", "second", "millisecond", "timezone")
    by_week = type(operand) is dict and "isoWeekYear" in operand
    if by_week:
        given = compiler.named(name, operand, ("isoWeekYear",), ("isoWeek", "isoDayOfWeek", *clock))
    else:
        given = compiler.named(name, operand, ("year",), ("month", "day", *clock))

    def evaluate(document: Document, variables: Variables) -> Value:
        found = {key: item(document, variables) for key, item in given.items()}
        zone = found.pop("timezone", "UTC")
        if nullish(zone) or any(nullish(item) for item in found.values()):
            return None
        parts = {key: _whole_part(key, item) for key, item in found.items()}
        day = _from_weeks(parts) if by_week else _from_months(parts)
        return instant(_with_clock(day, parts), time_zone(zone))

    return evaluate


def _whole_part(name: str, value: Value) -> int:
    number = integral(value)
    if number is None:
        raise refused(
            40515, f"'{name}' must evaluate to an integer, found {kind_name(value)} with value {shown(value)}"
        )
    if abs(number) > _PART_MAX:
        raise refused(31034, f"'{name}' must evaluate to a value in the range [-{_PART_MAX}, {_PART_MAX}]")
    return number


def _from_months(parts: dict[str, int]) -> datetime:
    year = parts["year"]
    if not 1 <= year <= 9999:
        raise refused(40523, f"'year' must evaluate to an integer in the range 1 to 9999, found {year}")
    return _shifted(_plus_months(datetime(year, 1, 1), parts.get("month", 1) - 1), parts.get("day", 1) - 1)  # noqa: DTZ001


def _from_weeks(parts: dict[str, int]) -> datetime:
    year = parts["isoWeekYear"]
    if not 1 <= year <= 9999:
        raise refused(
            31095, f"'isoWeekYear' must evaluate to an integer in the range 1 to 9999, found {year}"
        )
    days = 7 * (parts.get("isoWeek", 1) - 1) + parts.get("isoDayOfWeek", 1) - 1
    return _shifted(datetime.fromisocalendar(year, 1, 1), days)


def _with_clock(day: datetime, parts: dict[str, int]) -> datetime:
    ms = sum(parts.get(unit, 0) * length for unit, length in _FIXED_MS.items())
    try:
        return day + timedelta(milliseconds=ms)
    except OverflowError as exc:
        raise _outside() from exc


def _shifted(day: datetime, days: int) -> datetime:
    try:
        return day + timedelta(days=days)
    except OverflowError as exc:
        raise _outside() from exc


def _outside() -> InvalidFilter:
    return refused(2, "the date lies outside the years 1 to 9999")


def _plus_months(day: datetime, months: int) -> datetime:
    """The same day so many months later, or the last one of that month."""
    at = day.year * 12 + day.month - 1 + months
    year, month = divmod(at, 12)
    if not 1 <= year <= 9999:
        raise _outside()
    return day.replace(year=year, month=month + 1, day=min(day.day, monthrange(year, month + 1)[1]))


# Arithmetic.


def _unit(name: str, value: Value) -> str:
    if type(value) is not str:
        raise refused(5439013, f"{name} requires 'unit' to be a string, but got {kind_name(value)}")
    if value not in _FIXED_MS and value not in _DAYS and value not in _MONTHS:
        raise refused(9, f"{name} parameter 'unit' value cannot be recognized as a time unit: {value[:40]}")
    return value


def _adding(name: str, sign: int) -> Builder:
    def evaluate(startDate: Value, unit: Value, amount: Value, timezone: Value = "UTC") -> Value:
        if any(nullish(item) for item in (startDate, unit, amount, timezone)):
            return None
        number = integral(amount)
        if number is None:
            raise refused(5166405, f"{name} expects integer amount of time units, found {kind_name(amount)}")
        length, count = _unit(name, unit), sign * number
        if abs(count) > 10**15:
            raise refused(5166406, f"{name} overflowed")
        date, zone = as_date(startDate), time_zone(timezone)
        if length in _FIXED_MS:
            return date_from_ms(date_to_ms(date) + count * _FIXED_MS[length], InvalidFilter)
        day = local(date, zone)
        if length in _DAYS:
            return instant(_shifted(day, max(-(10**8), min(10**8, count * _DAYS[length]))), zone)
        return instant(_plus_months(day, count * _MONTHS[length]), zone)

    return keyword(evaluate, ("startDate", "unit", "amount"), ("timezone",))


def _difference(
    startDate: Value,
    endDate: Value,
    unit: Value,
    timezone: Value = "UTC",
    startOfWeek: Value = "sunday",
) -> Value:
    """How many boundaries of the unit lie between two dates."""
    if any(nullish(item) for item in (startDate, endDate, unit, timezone)):
        return None
    length, zone = _unit("$dateDiff", unit), time_zone(timezone)
    if length == "week" and nullish(startOfWeek):
        return None
    first = _weekday("$dateDiff", startOfWeek) if length == "week" else 0
    start, end = (_serial(local(as_date(date), zone), length, first) for date in (startDate, endDate))
    return whole(end - start, LONG)


def _serial(day: datetime, unit: str, first_weekday: int) -> int:
    """The number of the unit a local date lies in."""
    if unit in _MONTHS:
        return (day.year * 12 + day.month - 1) // _MONTHS[unit]
    if unit == "day":
        return day.toordinal()
    if unit == "week":
        return (day.toordinal() - 1 - first_weekday) // 7
    return (day - _REFERENCE) // timedelta(milliseconds=_FIXED_MS[unit])


def _weekday(name: str, value: Value) -> int:
    """0 for Monday."""
    wanted = value.lower() if type(value) is str else ""
    for at, weekday in enumerate(_WEEKDAYS):
        if wanted in (weekday, weekday[:3]):
            return at
    raise refused(
        5439015,
        f"{name} parameter 'startOfWeek' value cannot be recognized as a day of a week: {shown(value)}",
    )


def _truncated(
    date: Value,
    unit: Value,
    binSize: Value = 1,
    timezone: Value = "UTC",
    startOfWeek: Value = "sunday",
) -> Value:
    if any(nullish(item) for item in (date, unit, binSize, timezone)):
        return None
    length, zone, size = _unit("$dateTrunc", unit), time_zone(timezone), integral(binSize)
    if size is None or not 0 < size <= _PART_MAX:
        raise refused(
            5439017, f"$dateTrunc requires 'binSize' to be a positive integer, but got {shown(binSize)}"
        )
    value = as_date(date)
    if length in _FIXED_MS:
        start = date_to_ms(instant(_REFERENCE, zone))
        step = _FIXED_MS[length] * size
        return date_from_ms(date_to_ms(value) - (date_to_ms(value) - start) % step, InvalidFilter)
    day = local(value, zone)
    if length in _MONTHS:
        months = (day.year - _REFERENCE.year) * 12 + day.month - 1
        return instant(_plus_months(_REFERENCE, months - months % (_MONTHS[length] * size)), zone)
    start_day = _REFERENCE.toordinal()
    if length == "week":
        if nullish(startOfWeek):
            return None
        start_day += (_weekday("$dateTrunc", startOfWeek) - _REFERENCE.weekday()) % 7
    ordinal = day.toordinal() - (day.toordinal() - start_day) % (_DAYS[length] * size)
    if ordinal < 1:
        raise refused(2, "the date lies outside the years 1 to 9999")
    return instant(datetime.fromordinal(ordinal), zone)


# Text.


def _to_string(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = compiler.named(name, operand, ("date",), ("format", "timezone", "onNull"))
    source, form = given["date"], given.get("format")
    zone, on_null = given.get("timezone"), given.get("onNull", Constant(None))
    if isinstance(form, Constant) and type(form.value) is str:
        format_date(datetime(2000, 1, 1, tzinfo=UTC), form.value, UTC)

    def evaluate(document: Document, variables: Variables) -> Value:
        value = source(document, variables)
        place: Value = "UTC" if zone is None else zone(document, variables)
        wanted = None if form is None else form(document, variables)
        if nullish(value):
            return on_null(document, variables)
        if nullish(place) or (form is not None and nullish(wanted)):
            return None
        if form is not None and type(wanted) is not str:
            raise refused(
                18533, f"$dateToString requires that 'format' be a string, found: {kind_name(wanted)}"
            )
        where = time_zone(place)
        if wanted is None:
            wanted = "%Y-%m-%dT%H:%M:%S.%LZ" if where is UTC else "%Y-%m-%dT%H:%M:%S.%L"
        return format_date(as_date(value), wanted, where)

    return evaluate


def format_date(date: datetime, form: str, zone: tzinfo) -> str:
    """A date in a format. Raises InvalidFilter for a specifier that is not known."""
    day = local(date, zone)
    made, at = [], 0
    while at < len(form):
        letter = form[at]
        at += 1
        if letter != "%":
            made.append(letter)
            continue
        if at == len(form):
            raise refused(18535, "Unmatched '%' at end of format string")
        write = _SPECIFIERS.get(form[at])
        if write is None:
            raise refused(18536, f"Invalid format character '%{form[at]}' in format string")
        made.append(write(day, date, zone))
        at += 1
    return "".join(made)


def _offset(date: datetime, zone: tzinfo) -> int:
    delta = date.astimezone(zone).utcoffset() or timedelta()
    return int(delta.total_seconds()) // 60


def _offset_text(_day: datetime, date: datetime, zone: tzinfo) -> str:
    minutes = _offset(date, zone)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


_SPECIFIERS: Final[dict[str, Callable[[datetime, datetime, tzinfo], str]]] = {
    "%": lambda _day, _date, _zone: "%",
    "b": lambda day, _date, _zone: month_name(day.month)[:3],
    "B": lambda day, _date, _zone: month_name(day.month),
    "d": lambda day, _date, _zone: f"{day.day:02d}",
    "G": lambda day, _date, _zone: f"{day.isocalendar().year:04d}",
    "H": lambda day, _date, _zone: f"{day.hour:02d}",
    "j": lambda day, _date, _zone: f"{day.timetuple().tm_yday:03d}",
    "L": lambda day, _date, _zone: f"{day.microsecond // 1000:03d}",
    "m": lambda day, _date, _zone: f"{day.month:02d}",
    "M": lambda day, _date, _zone: f"{day.minute:02d}",
    "S": lambda day, _date, _zone: f"{day.second:02d}",
    "u": lambda day, _date, _zone: str(day.isoweekday()),
    "U": lambda day, _date, _zone: f"{_week(day):02d}",
    "V": lambda day, _date, _zone: f"{day.isocalendar().week:02d}",
    "w": lambda day, _date, _zone: str(day.isoweekday() % 7 + 1),
    "Y": lambda day, _date, _zone: f"{day.year:04d}",
    "z": _offset_text,
    "Z": lambda _day, date, zone: f"{_offset(date, zone):+d}",
}


def _from_string(compiler: Compiler, name: str, operand: Value) -> Expression:
    optional = ("format", "timezone", "onError", "onNull")
    given = compiler.named(name, operand, ("dateString",), optional)
    source, form, zone = given["dateString"], given.get("format"), given.get("timezone")
    on_error, on_null = given.get("onError"), given.get("onNull", Constant(None))

    def evaluate(document: Document, variables: Variables) -> Value:
        text = source(document, variables)
        if nullish(text):
            return on_null(document, variables)
        wanted = form(document, variables) if form else ""
        place = zone(document, variables) if zone else "UTC"
        if nullish(wanted) or nullish(place):
            return None
        try:
            return _read(text, wanted, time_zone(place) if zone else None)
        except InvalidFilter:
            if on_error is None:
                raise
            return on_error(document, variables)

    return evaluate


def _read(text: Value, form: Value, zone: tzinfo | None) -> datetime:
    if type(text) is not str:
        raise refused(
            241, f"$dateFromString requires that 'dateString' be a string, found: {kind_name(text)}"
        )
    if type(form) is not str:
        raise refused(40684, f"$dateFromString requires that 'format' be a string, found: {kind_name(form)}")
    return parse_with_format(text, form, zone) if form else parse_date(text, zone)


OPERATORS: Final[Mapping[str, Builder]] = {
    **{name: _part(function, long=name == "$isoWeekYear") for name, function in _PARTS.items()},
    "$dateAdd": _adding("$dateAdd", 1),
    "$dateDiff": keyword(_difference, ("startDate", "endDate", "unit"), ("timezone", "startOfWeek")),
    "$dateFromParts": _from_parts,
    "$dateFromString": _from_string,
    "$dateSubtract": _adding("$dateSubtract", -1),
    "$dateToParts": keyword(_to_parts, ("date",), ("timezone", "iso8601")),
    "$dateToString": _to_string,
    "$dateTrunc": keyword(_truncated, ("date", "unit"), ("binSize", "timezone", "startOfWeek")),
}
"""Dates."""
