"""Every metric of a running platform is described, and what is described is there."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cloudlet.settings import Paths
from tests.acceptance.installation import REPOSITORY, Installation
from tests.integration.up_support import answering, until, write_project

REFERENCE = REPOSITORY / "docs" / "reference" / "metrics.md"
ROW = re.compile(
    r"^\| `(cloudlet_[a-z_]+)` \| (counter|gauge|histogram) \| ?([^|]*?) ?\| ([^|]+) \|$", re.MULTILINE
)
VERSION = {"environment", "function", "version"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = Installation(tmp_path_factory.mktemp("metrics") / "data")
    try:
        running.start()
        project = write_project(
            tmp_path_factory.mktemp("project"),
            {"hello": answering({"ok": True}), "broken": "exports.main = async () => process.exit(1)\n"},
        )
        running.deploy(project)
        yield running
    finally:
        running.stop()


def scrape(installation: Installation) -> str:
    connection = http.client.HTTPConnection("cloudlet", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(Paths(installation.data).admin_socket))
    try:
        connection.request("GET", "/metrics")
        reply = connection.getresponse()
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return reply.read().decode()
    finally:
        connection.close()


def families(installation: Installation) -> dict[str, Metric]:
    """By the name of their documentation: counters with their ending."""
    found: dict[str, Metric] = {}
    for family in text_string_to_metric_families(scrape(installation)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in found, f"two processes tell {name}"
        found[name] = family
    return found


def value(installation: Installation, name: str, **labels: str) -> float:
    """Sum of the samples of a metric that have these labels; of a histogram its count."""
    samples = families(installation)[name].samples
    exact = (name, f"{name}_count")
    return sum(each.value for each in samples if each.name in exact and labels.items() <= each.labels.items())


def test_every_metric_is_described_and_none_is_stale(installation: Installation) -> None:
    installation.invoke("hello", {})
    documented = {name: kind for name, kind, _, _ in ROW.findall(REFERENCE.read_text())}
    shown = families(installation)
    assert {name: family.type for name, family in shown.items()} == documented
    assert all(family.documentation for family in shown.values())


def test_labels_are_the_described_ones_and_name_nobody(installation: Installation) -> None:
    installation.invoke("hello", {})
    documented = {
        name: set(re.findall(r"`([a-z]+)`", labels))
        for name, _, labels, _ in ROW.findall(REFERENCE.read_text())
    }
    for name, family in families(installation).items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == documented[name], sample
    allowed = {
        "class",
        "file",
        "kind",
        "outcome",
        "phase",
        "pooled",
        "process",
        "reason",
        "runtime",
        "source",
    }
    assert set[str]().union(*documented.values()) <= allowed | VERSION | {"state", "upstream"}


def test_calls_starts_and_ends_are_counted(installation: Installation) -> None:
    starts = value(installation, "cloudlet_node_instance_starts_total", runtime="node24")
    ends = value(installation, "cloudlet_node_instance_ends_total")
    failures = value(installation, "cloudlet_activator_calls_total", outcome="function_exited")
    answered = value(installation, "cloudlet_activator_calls_total", outcome="ok")
    waited = value(installation, "cloudlet_activator_wait_seconds")
    installation.invoke("hello", {})
    assert value(installation, "cloudlet_activator_calls_total", outcome="ok") == answered + 1
    assert value(installation, "cloudlet_activator_wait_seconds") == waited + 1
    with pytest.raises(Exception, match="function_exited"):
        installation.invoke("broken", {})
    assert value(installation, "cloudlet_activator_calls_total", outcome="function_exited") == failures + 1
    until(
        lambda: value(installation, "cloudlet_node_instance_ends_total") > ends,
        "the end of the instance was counted",
    )
    installation.invoke("hello", {})
    assert value(installation, "cloudlet_node_instance_starts_total", runtime="node24") >= starts
    assert value(installation, "cloudlet_scheduler_version_desired_instances", function="hello") >= 1
    assert value(installation, "cloudlet_node_instances", state="ready") >= 1


def test_publications_and_the_records_are_told(installation: Installation) -> None:
    published = value(installation, "cloudlet_control_publications_total", outcome="ok")
    installation.deploy(write_project(installation.data / "one", {"one": answering(1)}))
    assert value(installation, "cloudlet_control_publications_total", outcome="ok") > published
    assert (
        value(installation, "cloudlet_control_published_sequence")
        == value(installation, "cloudlet_scheduler_records_sequence")
        == installation.status()["sequence"]
    )
    assert value(installation, "cloudlet_edge_rejected_updates_total") == 0


def test_processes_and_pools_are_told(installation: Installation) -> None:
    until(
        lambda: (
            value(installation, "cloudlet_node_pool_cells")
            == value(installation, "cloudlet_node_pool_target_cells")
        ),
        "the pools were full",
    )
    for process in ("api", "control", "envoy"):
        assert value(installation, "cloudlet_node_process_ready", process=process) == 1
        assert value(installation, "cloudlet_node_process_memory_bytes", process=process) > 1024 * 1024
    for source in ("edge", "control", "node"):
        assert value(installation, "cloudlet_observe_source_up", source=source) == 1


def test_the_page_stays_small(installation: Installation) -> None:
    installation.invoke("hello", {})
    assert len(scrape(installation)) < 100_000


def test_the_command_prints_the_page(installation: Installation) -> None:
    text = installation.command("metrics")
    assert {family.name for family in text_string_to_metric_families(text)} == {
        family.name for family in families(installation).values()
    }
    ready = installation.json("metrics")["cloudlet_node_process_ready"]
    assert ready["type"] == "gauge"
    assert {each["labels"]["process"]: each["value"] for each in ready["samples"]} == {
        "api": 1.0,
        "control": 1.0,
        "envoy": 1.0,
    }
