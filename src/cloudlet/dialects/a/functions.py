"""``functions.*`` of dialect A."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloudlet.dialects.a.actions import Action, Call
from cloudlet.dialects.a.envelope import parameters
from cloudlet.dialects.names import known_name
from cloudlet.model.errors import BodyTooLarge, VersionNotFound
from cloudlet.model.ids import LATEST
from cloudlet.model.invocation import EVENT_BYTES_MAX, Invocation, Invoker


class _Invoke(msgspec.Struct, frozen=True):
    function_name: str
    request_data: str | None = None
    """The event as JSON text; empty means no event."""
    qualifier: str | None = None


_invoke = msgspec.json.Decoder(_Invoke)


class FunctionActions:
    """Calls of functions, with the caller's user and one level deeper."""

    def __init__(self, invoker: Invoker) -> None:
        self._invoker = invoker

    def table(self) -> Mapping[str, Action]:
        return {"functions.invokeFunction": self.invoke}

    async def invoke(self, call: Call) -> dict[str, Any]:
        """``response_data`` is the result as JSON text."""
        wanted = parameters(call.body, _invoke)
        event = (wanted.request_data or "").encode("utf-8", "surrogatepass")
        if len(event) > EVENT_BYTES_MAX:
            raise BodyTooLarge(f"the event is larger than {EVENT_BYTES_MAX} bytes")
        if wanted.qualifier not in (None, "", LATEST):
            raise VersionNotFound(f"only the qualifier {LATEST} exists, not {str(wanted.qualifier)[:80]!r}")
        result = await self._invoker.invoke(
            Invocation(
                identity=call.caller.identity,
                function=known_name(wanted.function_name),
                body=event,
                request_id=call.request_id,
                source=call.caller.source,
                depth=call.caller.depth,
                client_ip=call.caller.client_ip,
            )
        )
        return {"data": {"response_data": result.body.decode("utf-8", "replace")}}
