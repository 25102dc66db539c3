"""``Server-Timing`` of a late-bound call: stages that do not overlap, in milliseconds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudlet.scheduler.leases import Lease


def stages(lease: Lease, arrived_at: float, sent_at: float) -> dict[str, float]:
    """Where the time until the call was sent went.

    ``queue``: waiting for an instance to be free or for its start to begin; ``sandbox`` and ``load``: the
    start, as the node measured it (only for the call that waited for it); ``schedule``: the rest, our own
    work.
    """
    whole = max(0.0, lease.granted_at - arrived_at)
    schedule = max(0.0, sent_at - lease.granted_at)
    cold = lease.cold
    if cold is None:
        return {"queue": whole * 1000, "schedule": schedule * 1000}
    queue = max(0.0, cold.issued_at - arrived_at)
    sandbox, load = cold.timing.sandbox_ms, cold.timing.load_ms
    rest = max(0.0, (whole - queue + schedule) * 1000 - sandbox - load)
    return {"queue": queue * 1000, "schedule": rest, "sandbox": sandbox, "load": load}


def merged(upstream: Iterable[str], ours: Mapping[str, float]) -> str:
    """One header value: our stages, then what the instance said. What the instance measured itself wins."""
    said = [part.strip() for value in upstream for part in value.split(",") if part.strip()]
    names = {part.split(";", 1)[0].strip() for part in said}
    mine = [f"{name};dur={value:.3f}" for name, value in ours.items() if name not in names]
    return ", ".join([*mine, *said])


def parsed(value: str) -> dict[str, float]:
    """Stage → milliseconds; what cannot be read is left out."""
    found: dict[str, float] = {}
    for part in value.split(","):
        name, _, rest = part.strip().partition(";")
        key, _, number = rest.strip().partition("=")
        if name and key == "dur":
            try:
                found[name] = float(number)
            except ValueError:
                continue
    return found
