"""``cloudlet status``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from .session import Session, ago, command_options, isolation, table


@click.command()
@command_options
def status(session: Session) -> None:
    """Show where cloudlet listens, how instances are isolated and which of them run.

    \b
    Examples:
      cloudlet status
      cloudlet status --json
    """
    answer = session.client().get("/status")
    session.show(answer, lambda: _text(answer))


def _text(answer: Mapping[str, Any]) -> str:
    lines = [
        f"cloudlet {answer['version']}",
        f"URL           {answer['url']}",
        f"Isolation     {isolation(answer['rung'])}",
        f"Environments  {answer['environments']}",
        f"Functions     {answer['functions']}",
        f"Pools         {_pools(answer['pools'])}",
        f"Processes     {_processes(answer['processes'])}",
        "",
        instances(answer["running"]),
    ]
    return "\n".join(lines)


def instances(running: list[Mapping[str, Any]]) -> str:
    """A table of instances."""
    if not running:
        return "No instance is running; the next call starts one."
    now = time.time()
    rows = [
        {
            "id": str(item["instance_id"]),
            "function": f"{item['environment']}/{item['function']}",
            "version": str(item["version"])[:8],
            "state": str(item["state"]),
            "pid": str(item["pid"]),
            "started": ago(float(item["started_at"]), now),
        }
        for item in running
    ]
    columns = {"id": "INSTANCE", "function": "FUNCTION", "version": "VERSION", "state": "STATE"}
    return table(rows, {**columns, "pid": "PROCESS", "started": "STARTED"})


def _processes(processes: list[Mapping[str, Any]]) -> str:
    return ", ".join(map(_process, processes)) or "unknown: the node does not answer"


def _process(process: Mapping[str, Any]) -> str:
    shown = f"{process['name']} {process['pid']}" if process["ready"] else f"{process['name']} (starting)"
    restarts = process["restarts"]
    return f"{shown} (restarted {restarts} times)" if restarts > 1 else shown + " (restarted)" * restarts


def _pools(pools: Mapping[str, int]) -> str:
    return ", ".join(f"{runtime} {count}" for runtime, count in sorted(pools.items())) or "none"
