"""``cloudlet up``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .session import Session, command_options, isolation

if TYPE_CHECKING:
    from cloudlet.serve.node import Ready


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the edge; 0 takes a free one.  [default: 8787]"
)
@click.option("--host", help="Address of the edge.  [default: 127.0.0.1]")
@command_options
def up(session: Session, port: int | None, host: str | None) -> None:
    """Run cloudlet until it is stopped with Ctrl-C or SIGTERM.

    Calls in flight are finished first, and no process is left behind. Other settings are read from
    CLOUDLET_… variables.

    \b
    Examples:
      cloudlet up
      cloudlet up --data ./data --port 9000
    """
    settings = session.settings(port=port, host=host)

    # Heavy, and needed by this command only.
    from cloudlet.serve.node import run_node

    run_node(settings, lambda ready: _tell(session, ready))


def _tell(session: Session, ready: Ready) -> None:
    if session.as_json:
        # One line, so that a program that waits for it knows when it has all of it.
        value = {
            "url": ready.url,
            "data": str(ready.data),
            "rung": ready.rung.value,
            "private_tmp": ready.private_tmp,
            "took_s": round(ready.took_s, 3),
        }
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        click.echo(_text(ready))


def _text(ready: Ready) -> str:
    tmp = "each instance has its own /tmp" if ready.private_tmp else "instances share /tmp"
    return "\n".join(
        [
            f"cloudlet is ready after {ready.took_s:.1f} s",
            f"  Functions  {ready.url}/v1/functions/NAME",
            f"  SDKs       {ready.url}/admin",
            f"  Data       {ready.data}",
            f"  Isolation  {isolation(ready.rung)}; {tmp}",
            "Deploy with 'cloudlet deploy PATH', stop with Ctrl-C.",
        ]
    )
