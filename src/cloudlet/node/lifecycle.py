"""The life of an instance as a table: what may happen in which state, and why an instance ended. Pure.

::

    STARTING ──loaded──▶ READY ──quiesced──▶ QUIESCED
                           ▲                    │
                           └──────resumed───────┘       every state ──ended──▶ ENDED
"""

from __future__ import annotations

from signal import SIGABRT

from cloudlet.model.sandbox import EndReason, InstanceState
from cloudlet.sandbox.base import CellExit

_AFTER = {
    (InstanceState.STARTING, "loaded"): InstanceState.READY,
    (InstanceState.READY, "quiesced"): InstanceState.QUIESCED,
    (InstanceState.QUIESCED, "quiesced"): InstanceState.QUIESCED,
    (InstanceState.QUIESCED, "resumed"): InstanceState.READY,
    (InstanceState.READY, "resumed"): InstanceState.READY,
}


def after(state: InstanceState, event: str) -> InstanceState:
    """The state after the cell said `event`. What does not belong here changes nothing: function code can
    write to the control channel, and must not be able to do more than confuse the state of its own
    instance."""
    return _AFTER.get((state, event), state)


def end_reason(condemned: EndReason | None, exit_: CellExit, heap_exhausted: bool) -> EndReason:
    """Why an instance ended: what the node decided first, else what the process's end looks like."""
    if condemned is not None:
        return condemned
    if heap_exhausted and exit_.signal == SIGABRT:
        return EndReason.OUT_OF_MEMORY
    return EndReason.EXITED
