"""``cloudlet metrics``."""

from __future__ import annotations

import click

from .session import Session, command_options


@click.command()
@command_options
def metrics(session: Session) -> None:
    """Print the metrics of all processes in Prometheus's text form.

    \b
    Examples:
      cloudlet metrics
      cloudlet metrics > /var/lib/node_exporter/cloudlet.prom
    """
    text = session.client().text("/metrics")
    if session.as_json:
        session.show(_families(text), str)
    else:
        click.echo(text, nl=False)


def _families(text: str) -> dict[str, object]:
    """Type and samples by the metric's documented name."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        f"{family.name}_total" if family.type == "counter" else family.name: {
            "type": family.type,
            "samples": [
                {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
                for sample in family.samples
            ],
        }
        for family in text_string_to_metric_families(text)
    }
