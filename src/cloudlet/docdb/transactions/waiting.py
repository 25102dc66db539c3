"""Waiting for an intent on the event loop."""

from __future__ import annotations

import asyncio

from cloudlet.docdb.transactions.base import Key
from cloudlet.docdb.transactions.intents import Intents, Owner


async def claim(intents: Intents, owner: Owner, key: Key, deadline: float) -> bool:
    """Take the intent, in line if need be; whether it was granted.

    What ends the wait is the state machine: a release, or a sweep after `deadline` (seconds, monotonic).
    """
    if intents.take(owner, key):
        return True
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def done(granted: bool) -> None:
        if not future.done():
            future.set_result(granted)

    ticket = intents.join(owner, key, deadline, done)
    if ticket is None:
        return False
    try:
        return await future
    finally:
        intents.leave(ticket)
