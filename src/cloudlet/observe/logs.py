"""The platform's own log: one JSON object a line on standard error, event name and fields."""

from __future__ import annotations

import logging
import sys

import structlog

PROCESS_FAILED = "process_failed"
"""Event of the last line that a process logs when an error of the platform ends it; it has `code` and
`message`."""


def configure(level: str, process: str) -> None:
    """Send every log line of this process to standard error, from `level` upwards, marked with `process`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, force=True)
