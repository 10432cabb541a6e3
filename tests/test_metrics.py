"""The text of metrics: what a Prometheus server reads in it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from layerfs.fuse.tallies import Tally
from layerfs.metrics import exposition, exposition_of_server
from layerfs.status import BUCKETS, LayerCount, Requests, Serving, Status, Underway

ABOUT = Status(
    version="1.2", pid=2, mountpoint="/m", store="/s", platform="linux/amd64", offline=False, waiting=3,
    fetching=(
        Underway(repository="a/b", digest="sha256:00", phase="queued", received=1, size=4, since=5.0),
        Underway(repository="a/c", digest="sha256:01", phase="queued", received=1, size=4, since=5.0),
    ),
    errors=(), fetched=5, fetched_bytes=600, failed=3, failures={"NotFound": 2, "DigestMismatch": 1},
    received={"upstream": 11, "mirror": 12}, fallbacks=13, rung=14, deaths={"extractor": 15},
    layers=(LayerCount(level="toc", result="refused", count=16),), evicted={"layer": 17},
    started=7.0, removed=8, store_size=18, disk_size=1000, disk_free=100,
    requests=(
        Requests(
            operation="lookup", asked=9, failed={"ENOENT": 4}, waits=(1, 0, 2, *[0] * 5, 1), seconds=9.5
        ),
    ),
)  # fmt: skip

SERVER = Serving(connections=1, refused=2, answers={("blob", 200): 3}, sent=4)


def values(text: bytes) -> dict[tuple[str, ...], float]:
    """Return the samples of a text by name and labels."""
    return {
        (sample.name, *sorted(f"{name}={value}" for name, value in sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_what_is_counted_is_what_a_server_reads() -> None:
    found = values(exposition(ABOUT))

    expected = {
        ("layerfs_build_info", "platform=linux/amd64", "version=1.2"): 1,
        ("layerfs_waiting",): 3,
        ("layerfs_underway", "phase=queued"): 2,
        ("layerfs_underway", "phase=extracting"): 0,
        ("layerfs_fetched_blobs_total",): 5,
        ("layerfs_fetched_bytes_total",): 600,
        ("layerfs_failures_total", "error=DigestMismatch"): 1,
        ("layerfs_failures_total", "error=NotFound"): 2,
        ("layerfs_evicted_bytes_total",): 8,
        ("layerfs_evictions_total", "kind=layer"): 17,
        ("layerfs_received_bytes_total", "source=upstream"): 11,
        ("layerfs_received_bytes_total", "source=mirror"): 12,
        ("layerfs_mirror_fallbacks_total",): 13,
        ("layerfs_bell_files_total",): 14,
        ("layerfs_worker_deaths_total", "worker=extractor"): 15,
        ("layerfs_layers_total", "level=toc", "result=refused"): 16,
        ("layerfs_disk_free_bytes",): 100,
        ("layerfs_store_bytes",): 18,
        ("layerfs_requests_total", "operation=lookup"): 9,
        ("layerfs_request_errors_total", "errno=ENOENT", "operation=lookup"): 4,
        ("layerfs_request_wait_seconds_bucket", "le=0.001", "operation=lookup"): 1,
        ("layerfs_request_wait_seconds_bucket", "le=0.01", "operation=lookup"): 1,
        ("layerfs_request_wait_seconds_bucket", "le=0.1", "operation=lookup"): 3,
        ("layerfs_request_wait_seconds_bucket", "le=+Inf", "operation=lookup"): 4,
        ("layerfs_request_wait_seconds_count", "operation=lookup"): 4,
        ("layerfs_request_wait_seconds_sum", "operation=lookup"): 9.5,
    }
    assert {key: found[key] for key in expected} == expected


_PAPERS = Path(__file__).parents[1] / "docs"
_SUFFIXES = re.compile(r"(_total|_info|_bucket|_sum|_count)$")


@pytest.mark.parametrize("paper", ["monitoring.md", "monitoring/rules.yml", "monitoring/dashboard.json"])
def test_what_papers_ask_for_is_counted(paper: str) -> None:
    named = set(re.findall(r"\blayerfs_[a-z_]+", (_PAPERS / paper).read_text("utf-8")))
    known = {key[0] for key in values(exposition(ABOUT)) | values(exposition_of_server(SERVER))}

    assert len(named) >= 5
    assert {_SUFFIXES.sub("", name) for name in named} <= {_SUFFIXES.sub("", name) for name in known}


def test_the_paper_names_every_metric() -> None:
    text = (_PAPERS / "monitoring.md").read_text("utf-8")
    found = values(exposition(ABOUT)) | values(exposition_of_server(SERVER))
    families = {_SUFFIXES.sub("", key[0]) for key in found}

    assert [name for name in families if name not in text] == []


def test_the_dashboard_is_one_and_asks_one_instance_at_a_time() -> None:
    board = json.loads((_PAPERS / "monitoring/dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]

    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert [text for text in asked if '{instance=~"$instance"}' not in text] == []


def test_the_paper_names_every_field_of_status_json() -> None:
    text = (_PAPERS / "monitoring.md").read_text("utf-8").partition("## status.json")[2]

    assert [name for name in Status.__struct_fields__ if f"`{name}`" not in text] == []
    assert [name for name in Requests.__struct_fields__ if f"`{name}`" not in text] == []


@pytest.mark.long
def test_prometheus_takes_the_rules() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (package prometheus)")
    subprocess.run(["promtool", "check", "rules", _PAPERS / "monitoring/rules.yml"], check=True)


def test_no_name_that_somebody_made_is_a_label() -> None:
    text = exposition(ABOUT).decode()

    for name in ("a/b", "sha256", "/m", "/s"):
        assert name not in text


def test_a_wait_counts_where_it_belongs() -> None:
    tally = Tally()
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] * 1.5, BUCKETS[-1] * 2):
        tally.waited(seconds)
    assert tally.waits == [2, 1, *[0] * (len(BUCKETS) - 2), 1]
    assert tally.seconds == BUCKETS[0] * 2.5 + BUCKETS[-1] * 2
