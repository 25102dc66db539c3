"""Dates as text: time zones, and reading dates with and without a format."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cloudlet.docdb.pipeline.expressions.base import kind_name, refused
from cloudlet.docdb.values import Value, date_from_ms, date_to_ms
from cloudlet.model.errors import InvalidFilter

_OFFSET: Final = re.compile(r"([+-])(\d\d)(?::?(\d\d))?\Z", re.ASCII)
_ZONE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}\Z")
_CLOCK: Final = (
    r"(?:[T ]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?|[A-Z][A-Za-z_]+/[A-Za-z_/]+)?\Z"
)
_MONTH: Final = r"(?P<name>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_FORMS: Final = tuple(
    re.compile(form + _CLOCK, re.ASCII | re.IGNORECASE)
    for form in (
        r"\s*(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})",
        r"\s*(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)",
        r"\s*(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})",
        rf"\s*{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
        rf"\s*(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[ -]{_MONTH}[ -](?P<year>\d{{4}})",
    )
)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_PARTS: Final = {
    "d": r"(?P<day>\d{1,2})",
    "G": r"(?P<iso_year>\d{4})",
    "H": r"(?P<hour>\d{1,2})",
    "j": r"(?P<day_of_year>\d{1,3})",
    "L": r"(?P<fraction>\d{1,3})",
    "m": r"(?P<month>\d{1,2})",
    "M": r"(?P<minute>\d{1,2})",
    "S": r"(?P<second>\d{1,2})",
    "u": r"(?P<iso_day>\d)",
    "V": r"(?P<iso_week>\d{1,2})",
    "Y": r"(?P<year>\d{4})",
    "z": r"(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d|[+-]\d\d)",
    "Z": r"(?P<minutes>[+-]?\d{1,4})",
    "b": r"(?P<name>[A-Za-z]{3})",
    "B": r"(?P<name>[A-Za-z]+)",
    "%": "%",
}
_FORMAT_MAX: Final = 1_000
_TEXT_MAX: Final = 200


def time_zone(value: Value) -> tzinfo:
    """The zone of an Olson name or an offset. Raises InvalidFilter."""
    if type(value) is not str:
        raise refused(40517, f"timezone must evaluate to a string, found {kind_name(value)}")
    return _zone(value[:100])


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    if name in ("UTC", "GMT", "Z"):
        return UTC
    offset = _OFFSET.match(name)
    if offset:
        sign, hours, minutes = offset.groups()
        delta = timedelta(hours=int(hours), minutes=int(minutes or 0))
        if delta < timedelta(hours=24):
            return timezone(-delta if sign == "-" else delta)
    elif _ZONE_NAME.match(name):
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise refused(40485, f'unrecognized time zone identifier: "{name}"')


def parse_date(text: str, zone: tzinfo | None = None) -> datetime:
    """A date in one of the usual forms; without a zone of its own it is in ``zone`` (UTC).

    Raises InvalidFilter, also if both the text and the caller name a zone.
    """
    if len(text) <= _TEXT_MAX:
        for form in _FORMS:
            match = form.match(text)
            if match:
                return _made(text, match.groupdict(), zone)
    raise _unparsed(text)


def parse_with_format(text: str, form: str, zone: tzinfo | None = None) -> datetime:
    """A date written in a format of ``$dateToString``. Raises InvalidFilter."""
    match = _pattern(form).match(text) if len(text) <= _TEXT_MAX else None
    if match is None:
        raise _unparsed(text, "format does not match")
    return _made(text, match.groupdict(), zone)


@lru_cache(maxsize=256)
def _pattern(form: str) -> re.Pattern[str]:
    if len(form) > _FORMAT_MAX:
        raise refused(40684, f"a date format may have {_FORMAT_MAX} characters")
    made, at = [], 0
    while at < len(form):
        letter = form[at]
        at += 1
        if letter != "%":
            made.append(r"\s+" if letter == " " else re.escape(letter))
            continue
        if at == len(form):
            raise refused(18535, "Unmatched '%' at end of format string")
        part = _PARTS.get(form[at])
        if part is None:
            raise refused(18536, f"Invalid format character '%{form[at]}' in format string")
        made.append(part)
        at += 1
    try:
        return re.compile("".join(made) + r"\Z", re.ASCII)
    except re.error as exc:
        raise refused(40684, "each part of a date may appear once in a format") from exc


def _made(text: str, found: dict[str, str | None], zone: tzinfo | None) -> datetime:
    parts = {name: part for name, part in found.items() if part is not None}
    own = _own_zone(parts)
    if own is not None and zone is not None:
        raise refused(
            40551,
            "you cannot pass in a date/time string with time zone information "
            f"('{text}') together with a timezone argument",
        )
    fraction = parts.get("fraction", "0")
    milliseconds = int(fraction[:3].ljust(3, "0"))
    try:
        day = _day(text, parts)
        clock = {name: int(parts.get(name, 0)) for name in ("hour", "minute", "second")}
        local = day.replace(**clock, microsecond=milliseconds * 1000)  # type: ignore[arg-type]
        return to_utc(local.replace(tzinfo=own or zone or UTC))
    except (ValueError, OverflowError) as exc:
        raise _unparsed(text, "a part of it is out of range") from exc


def _day(text: str, parts: dict[str, str]) -> datetime:
    if "iso_year" in parts:
        week, day = int(parts.get("iso_week", 1)), int(parts.get("iso_day", 1))
        return datetime.fromisocalendar(int(parts["iso_year"]), week, day)
    if "year" not in parts:
        raise _unparsed(text, "an incomplete date/time string has been found, the year is missing")
    year = int(parts["year"])
    if "day_of_year" in parts:
        number = int(parts["day_of_year"])
        if not 1 <= number <= 366:
            raise ValueError("day of the year")
        return datetime(year, 1, 1) + timedelta(days=number - 1)  # noqa: DTZ001 - becomes local below
    if "name" in parts:
        month = _MONTHS.index(parts["name"][:3].lower()) + 1
    elif "month" in parts:
        month = int(parts["month"])
    else:
        month = 1
    return datetime(year, month, int(parts.get("day", 1)))  # noqa: DTZ001 - becomes local later


def _own_zone(parts: dict[str, str]) -> tzinfo | None:
    if "minutes" in parts:
        return timezone(timedelta(minutes=max(-1439, min(1439, int(parts["minutes"])))))
    if "zone" not in parts:
        return None
    name = parts["zone"]
    return _zone(name.upper() if len(name) <= 3 and name.isalpha() else name)


def to_utc(value: datetime) -> datetime:
    """A date in UTC, in whole milliseconds. Raises OverflowError outside the years 1 to 9999."""
    return date_from_ms(date_to_ms(value.astimezone(UTC)))


def month_name(month: int) -> str:
    """The English name."""
    return _LONG_MONTHS[month - 1]


def _unparsed(text: str, why: str = "no form of a date that is known") -> InvalidFilter:
    return refused(241, f"Error parsing date string '{text[:80]}'; {why}")
