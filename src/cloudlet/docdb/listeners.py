"""Telling listeners of commits, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from cloudlet.docdb.base import Change, Listener

log = structlog.get_logger(__name__)


def announce(listeners: Sequence[Listener], changes: Sequence[Change]) -> None:
    """Call every listener; one that fails, against its contract, keeps nobody else from hearing."""
    if not changes:
        return
    for listener in listeners:
        try:
            listener(changes)
        except Exception:
            log.exception("document_listener_failed")
