"""``make demo``: start cloudlet, deploy the example, play two users, check everything, show it all."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from tests.acceptance.installation import REPOSITORY, Installation, InstallationFailed
from tests.acceptance.order_food import (
    CHECKS,
    COLD,
    PROJECT,
    STAGES,
    CheckFailed,
    World,
    cold_start,
    latencies,
)
from tests.acceptance.player import NoAnswer

DATA = REPOSITORY / ".cloudlet-demo"


def main() -> int:
    """0 when every check held, 1 otherwise."""
    signal.signal(signal.SIGTERM, _stop)
    world = World(Installation(DATA))
    print(f"cloudlet demo: data in {DATA.name}/, what the platform prints in {DATA.name}/up.log", flush=True)
    try:
        failed = _play(world)
    except (InstallationFailed, CheckFailed, NoAnswer) as exc:
        failed = [str(exc)]
        _show("FAILED", str(exc))
    finally:
        problem = _stopped(world)
    if problem:
        failed.append(problem)
        _show("FAILED", problem)
    if failed:
        print(f"\ndemo failed: {len(failed)} of {len(CHECKS) + 2} checks did not hold")
        return 1
    _show("stop", "everything ended, no process left")
    _next_steps()
    print("\ndemo ok")
    return 0


def _stopped(world: World) -> str:
    """End the platform; return what was wrong with that, or nothing."""
    world.close()
    try:
        left = world.installation.stop()
    except InstallationFailed as exc:
        return str(exc)
    return f"processes left behind: {', '.join(left)}" if left else ""


def _play(world: World) -> list[str]:
    """Return what did not hold."""
    installation = world.installation
    seconds = installation.start()
    status = installation.status()
    _show("start", f"ready in {seconds:.1f} s at {installation.url}, isolation: {status['rung']}")
    summary = installation.deploy(PROJECT, "--create-collections")
    counts = f"{summary['deployed']} functions deployed, {summary['unchanged']} unchanged"
    _show("deploy", f"{PROJECT.relative_to(REPOSITORY)} in {summary['seconds']:.1f} s: {counts}")
    world.prepare(fresh=True)
    failed: list[str] = []
    for check in CHECKS:
        name, began = check.__name__.replace("_", " "), time.monotonic()
        try:
            facts = check(world)
            _show("ok", f"{name}: {facts} ({time.monotonic() - began:.1f} s)")
        except (CheckFailed, NoAnswer) as exc:
            failed.append(str(exc))
            _show("FAILED", f"{name}: {exc}")
    if not _show_cold_starts(world):
        failed.append("a cold start did not answer, or did not explain itself")
        _show("FAILED", failed[-1])
    _show_latencies(world)
    return failed


def _show_latencies(world: World) -> None:
    print("\nWarm calls, one after the other     p50        p95", flush=True)
    for each in latencies(world):
        print(f"  {each.what:<28} {each.p50_ms:6.2f} ms  {each.p95_ms:6.2f} ms", flush=True)


def _show_cold_starts(world: World) -> bool:
    """Whether all were answered and explained by their stages."""
    starts = {function: cold_start(world, function, data) for function, data in COLD}
    print("\nA cold start     " + "".join(f"{function:>13}" for function in starts))
    for stage in STAGES:
        times = [first.stages.get(stage) for first, _ in starts.values()]
        if any(times):
            print(f"  {stage:<15}" + "".join(f"{ms or 0:10.1f} ms" for ms in times))
    for what, n in (("for the caller", 0), ("the next call", 1)):
        print(
            f"  {what:<15}" + "".join(f"{pair[n].elapsed_ms:10.1f} ms" for pair in starts.values()),
            flush=True,
        )
    return all(first.ok and second.ok and "load" in first.stages for first, second in starts.values())


def _next_steps() -> None:
    print(f"""
Where to look next
  export PATH="$PWD/.venv/bin:$PATH" CLOUDLET_DATA="$PWD/{DATA.name}"
  cloudlet up                                   start it again; the orders are still there
  cloudlet fn list                              what is deployed
  cloudlet fn logs order                        what the functions printed
  cloudlet fn invoke dishes -d '{{"action": "search", "keyword": "noodles"}}'
  examples/order-food/README.md                 the project that was deployed
  docs/tutorial/first-project.md                your own project""")


def _show(word: str, text: str) -> None:
    print(f"  {word:<8} {text}", flush=True)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends like Ctrl-C: the platform is stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
