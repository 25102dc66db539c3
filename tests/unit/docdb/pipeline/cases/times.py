"""Dates."""

from __future__ import annotations

from typing import Any

from cloudlet.docdb.numeric import Long
from cloudlet.docdb.values import ObjectId
from tests.unit.docdb.pipeline.cases.kit import Refused, at

OID = ObjectId.from_hex("65a4f0000000000000000001")
D = "$d"  # Thursday, 2024-02-29T23:05:09.045Z


def text(form: str, **more: Any) -> dict[str, Any]:
    return {"$dateToString": {"date": D, "format": form, **more}}


def parse(value: Any, **more: Any) -> dict[str, Any]:
    return {"$dateFromString": {"dateString": value, **more}}


def add(unit: Any, amount: Any, **more: Any) -> dict[str, Any]:
    return {"$dateAdd": {"startDate": D, "unit": unit, "amount": amount, **more}}


def diff(start: str, end: str, unit: str, **more: Any) -> dict[str, Any]:
    return {"$dateDiff": {"startDate": at(start), "endDate": at(end), "unit": unit, **more}}


def trunc(unit: Any, **more: Any) -> dict[str, Any]:
    return {"$dateTrunc": {"date": D, "unit": unit, **more}}


TABLES: dict[str, list[tuple[Any, Any]]] = {
    # mongodb.com/docs/manual/reference/operator/aggregation/year and its neighbours
    "parts of dates": [
        ({"$year": D}, 2024),
        ({"$month": [D]}, 2),
        ({"$dayOfMonth": {"date": D}}, 29),
        ({"$dayOfMonth": {"date": D, "timezone": "Asia/Shanghai"}}, 1),
        ({"$dayOfMonth": {"date": D, "timezone": "+08:00"}}, 1),
        ({"$hour": {"date": D, "timezone": "-0530"}}, 17),
        ({"$hour": {"date": D, "timezone": "+03"}}, 2),
        ({"$dayOfYear": D}, 60),
        ({"$dayOfWeek": D}, 5),
        ({"$isoDayOfWeek": D}, 4),
        ({"$week": D}, 8),
        ({"$isoWeek": D}, 9),
        ({"$isoWeekYear": at("2021-01-01T00:00")}, Long(2020)),
        ({"$minute": D}, 5),
        ({"$second": D}, 9),
        ({"$millisecond": D}, 45),
        ({"$year": OID}, 2024),
        ({"$year": "$z"}, None),
        ({"$year": {"date": D, "timezone": "$nope"}}, None),
        ({"$year": "$n"}, Refused("can't convert from BSON type int to Date (code 16006)")),
        ({"$year": "2024"}, Refused("can't convert from BSON type string to Date")),
        ({"$hour": {"date": D, "timezone": "Mars/Base"}}, Refused('identifier: "Mars/Base" (code 40485)')),
        ({"$hour": {"date": D, "timezone": 8}}, Refused("timezone must evaluate to a string, found int")),
    ],
    # …/aggregation/dateToString
    "$dateToString": [
        ({"$dateToString": {"date": D}}, "2024-02-29T23:05:09.045Z"),
        ({"$dateToString": {"date": D, "timezone": "Asia/Shanghai"}}, "2024-03-01T07:05:09.045"),
        (text("%Y-%m-%d"), "2024-02-29"),
        (text("%Y-%m-%d", timezone="+08:00"), "2024-03-01"),
        (text("%H:%M:%S.%L %%"), "23:05:09.045 %"),
        (text("%G-W%V-%u"), "2024-W09-4"),
        (text("%j %U %w"), "060 08 5"),
        (text("%b %B"), "Feb February"),
        (text("%z %Z", timezone="America/New_York"), "-0500 -300"),
        (text("%z %Z", timezone="+05:30"), "+0530 +330"),
        (text("%d", onNull="none"), "29"),
        ({"$dateToString": {"date": "$nope", "format": "%d"}}, None),
        ({"$dateToString": {"date": "$nope", "format": "%d", "onNull": "none"}}, "none"),
        ({"$dateToString": {"date": D, "timezone": "$z"}}, None),
        (text("%Q"), Refused("Invalid format character '%Q' in format string (code 18536)")),
        (text("%"), Refused("Unmatched '%' at end of format string (code 18535)")),
        ({"$dateToString": {"date": D, "format": 5}}, Refused("that 'format' be a string, found: int")),
        ({"$dateToString": {"format": "%d"}}, Refused("Missing 'date' parameter to $dateToString")),
    ],
    # …/aggregation/dateFromString
    "$dateFromString": [
        (parse("2017-02-08T12:10:40.787"), at("2017-02-08T12:10:40.787")),
        (parse("2017-02-08T12:10:40.787Z"), at("2017-02-08T12:10:40.787")),
        (parse("2017-02-08"), at("2017-02-08T00:00")),
        (parse("2017-02-08 12:10"), at("2017-02-08T12:10")),
        (parse("2017-02-08T12:10:40+08:00"), at("2017-02-08T04:10:40")),
        (parse("2017-02-08T12:10:40", timezone="America/New_York"), at("2017-02-08T17:10:40")),
        (parse("20170208"), at("2017-02-08T00:00")),
        (parse("02/08/2017"), at("2017-02-08T00:00")),
        (parse("Feb 8, 2017"), at("2017-02-08T00:00")),
        (parse("8 February 2017 10:00"), at("2017-02-08T10:00")),
        (parse("06-15-2018", format="%m-%d-%Y"), at("2018-06-15T00:00")),
        (parse("15-06-2018 07:08", format="%d-%m-%Y %H:%M", timezone="+01"), at("2018-06-15T06:08")),
        (parse("2024-W09-4", format="%G-W%V-%u"), at("2024-02-29T00:00")),
        (parse("2024 060", format="%Y %j"), at("2024-02-29T00:00")),
        (parse("$z"), None),
        (parse("$nope", onNull="none"), "none"),
        (parse("x", onError="bad"), "bad"),
        (parse("2017-02-30"), Refused("a part of it is out of range")),
        (parse("x"), Refused("Error parsing date string 'x'")),
        (parse("2017", format="%m"), Refused("format does not match")),
        (parse("2017-02-08T12:10:40Z", timezone="UTC"), Refused("together with a timezone argument")),
        (parse(5), Refused("that 'dateString' be a string, found: int")),
    ],
    # …/aggregation/dateFromParts, dateToParts
    "parts and dates": [
        ({"$dateFromParts": {"year": 2024}}, at("2024-01-01T00:00")),
        ({"$dateFromParts": {"year": 2024, "month": 2, "day": 29, "hour": 12}}, at("2024-02-29T12:00")),
        ({"$dateFromParts": {"year": 2024, "month": 14}}, at("2025-02-01T00:00")),
        ({"$dateFromParts": {"year": 2024, "month": 0, "day": 0}}, at("2023-11-30T00:00")),
        ({"$dateFromParts": {"year": 2024, "minute": -1}}, at("2023-12-31T23:59")),
        ({"$dateFromParts": {"year": 2024, "timezone": "Asia/Shanghai"}}, at("2023-12-31T16:00")),
        ({"$dateFromParts": {"isoWeekYear": 2024, "isoWeek": 9, "isoDayOfWeek": 4}}, at("2024-02-29T00:00")),
        ({"$dateFromParts": {"year": 2024, "month": "$nope"}}, None),
        ({"$dateFromParts": {"year": 0}}, Refused("in the range 1 to 9999, found 0 (code 40523)")),
        ({"$dateFromParts": {"year": 2024, "day": 1.5}}, Refused("'day' must evaluate to an integer")),
        ({"$dateFromParts": {"month": 1}}, Refused("Missing 'year' parameter")),
        ({"$dateFromParts": {"isoWeekYear": 2024, "month": 1}}, Refused("Unrecognized argument")),
        (
            {"$dateToParts": {"date": D}},
            {"year": 2024, "month": 2, "day": 29, "hour": 23, "minute": 5, "second": 9, "millisecond": 45},
        ),
        (
            {"$dateToParts": {"date": D, "iso8601": True, "timezone": "+02"}},
            {
                "isoWeekYear": 2024,
                "isoWeek": 9,
                "isoDayOfWeek": 5,
                "hour": 1,
                "minute": 5,
                "second": 9,
                "millisecond": 45,
            },
        ),
        ({"$dateToParts": {"date": "$z"}}, None),
        ({"$dateToParts": {"date": D, "iso8601": 1}}, Refused("iso8601 must evaluate to a bool")),
    ],
    # …/aggregation/dateAdd, dateSubtract, dateDiff, dateTrunc
    "arithmetic with dates": [
        (add("year", 1), at("2025-02-28T23:05:09.045")),
        (add("month", -12), at("2023-02-28T23:05:09.045")),
        (add("quarter", 1), at("2024-05-29T23:05:09.045")),
        (add("week", 1), at("2024-03-07T23:05:09.045")),
        (add("day", 1), at("2024-03-01T23:05:09.045")),
        (add("hour", 1), at("2024-03-01T00:05:09.045")),
        (add("millisecond", Long(5)), at("2024-02-29T23:05:09.050")),
        (add("day", "$z"), None),
        (add("fortnight", 1), Refused("cannot be recognized as a time unit: fortnight")),
        (add("day", 1.5), Refused("expects integer amount of time units")),
        (add("year", 99999), Refused("outside the years 1 to 9999")),
        ({"$dateSubtract": {"startDate": D, "unit": "month", "amount": 1}}, at("2024-01-29T23:05:09.045")),
        (
            # One day later by the clock on the wall, though that night had only 23 hours.
            {
                "$dateAdd": {
                    "startDate": at("2024-03-30T12:00"),
                    "unit": "day",
                    "amount": 1,
                    "timezone": "Europe/Paris",
                }
            },
            at("2024-03-31T11:00"),
        ),
        (diff("2024-12-31T23:59", "2025-01-01T00:00", "year"), Long(1)),
        (diff("2024-01-31T00:00", "2024-02-01T00:00", "month"), Long(1)),
        (diff("2024-01-01T00:59", "2024-01-01T01:00", "hour"), Long(1)),
        (diff("2024-01-01T23:00", "2024-01-02T01:00", "day", timezone="+02"), Long(0)),
        (diff("2024-01-06T00:00", "2024-01-07T00:00", "week"), Long(1)),
        (diff("2024-01-06T00:00", "2024-01-07T00:00", "week", startOfWeek="monday"), Long(0)),
        (diff("2024-02-01T00:00", "2024-01-01T00:00", "day"), Long(-31)),
        (trunc("month"), at("2024-02-01T00:00")),
        (trunc("quarter"), at("2024-01-01T00:00")),
        (trunc("week"), at("2024-02-25T00:00")),
        (trunc("week", startOfWeek="mon"), at("2024-02-26T00:00")),
        (trunc("day", timezone="Asia/Shanghai"), at("2024-02-29T16:00")),
        (trunc("hour", binSize=6), at("2024-02-29T18:00")),
        (trunc("year", binSize=10), at("2020-01-01T00:00")),
        (trunc("day", binSize=0), Refused("'binSize' to be a positive integer")),
    ],
}
