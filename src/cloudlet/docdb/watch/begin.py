"""Where a watch begins: with everything its query returns, or after the last event of an earlier watch."""

from __future__ import annotations

from cloudlet.docdb.watch.events import DataType
from cloudlet.docdb.watch.hub import Hub
from cloudlet.docdb.watch.images import Touched
from cloudlet.docdb.watch.live import Live, reason_of
from cloudlet.docdb.watch.pending import Move
from cloudlet.docdb.watch.snapshot import Tail, read_all, read_tail
from cloudlet.docdb.watch.token import Token
from cloudlet.docdb.watch.watch import Start
from cloudlet.docdb.watch.window import moves_between
from cloudlet.model.errors import ChangesPruned, LimitExceeded


async def begin(hub: Hub, live: Live, token: Token | None) -> Start:
    """The start is exact at this moment: whoever attaches a watch must not wait before that.

    What cannot be resumed (the log does not reach back, too much has happened) begins anew.
    """
    if token is not None:
        resumed = await _resumed(hub, live, token)
        if resumed is not None:
            return resumed
    if live.limit is None:
        images, seq = await read_all(hub.source(live))
    else:
        await hub.loaded(live)
        assert live.window is not None
        images, seq = live.window.shown(), hub.position(live)
    moves = [Move(key, None, image, DataType.INIT) for key, image in images.items()]
    return Start(seq, len(images), moves)


async def _resumed(hub: Hub, live: Live, token: Token) -> Start | None:
    if token.digest != live.digest or token.seq > await hub.store.last_seq():
        return None
    try:
        if live.limit is not None:
            await hub.loaded(live)
        tail = await read_tail(hub.source(live), token.seq, hub.limits.replay_max)
        while live.loading:
            await hub.loaded(live)
            tail = await read_tail(hub.source(live), token.seq, hub.limits.replay_max)
    except (ChangesPruned, LimitExceeded):
        return None
    return _after(live, token, tail) if live.limit is None else _window_after(hub, live, token, tail)


def _after(live: Live, token: Token, tail: Tail) -> Start:
    match = live.where.match
    moves = []
    documents = token.documents
    for key, touched in tail.touched().items():
        before, after = touched.before, touched.after
        base = before if before is not None and match(before.document) else None
        now = after if after is not None and match(after.document) else None
        documents += (now is not None) - (base is not None)
        if base is not None or now is not None:
            moves.append(Move(key, base, now, reason_of(before, after)))
    return Start(tail.seq, max(0, documents), moves, token)


def _window_after(hub: Hub, live: Live, token: Token, tail: Tail) -> Start | None:
    """From the window as it was then to the window as it is now; None if the former is not known any more."""
    window, seq = live.window, hub.position(live)
    if window is None:
        return None
    touched = tail.touched(seq)
    former = window.restored(touched, _matched(live, touched))
    if former is None:
        return None
    shown = window.shown()
    return Start(seq, len(shown), moves_between(former.shown(), shown, touched), token)


def _matched(live: Live, touched: dict[bytes, Touched]) -> list[bytes]:
    match = live.where.match
    return [key for key, item in touched.items() if item.before is not None and match(item.before.document)]
