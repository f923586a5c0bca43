"""What Prometheus reads: by its conventions, bounded, and all that docs/grafana.json asks for."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from p2premap.web.metrics import NUMBERS
from tests.web.api import Api, soon

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana.json"


def test_metrics(api: Api) -> None:
    counters = api.get("/cluster").json["counters"]
    assert [number.counter for number in NUMBERS if number.counter not in counters] == []
    soon(lambda: b'p2premap_nodes{state="alive"} 3.0\n' in api.ask("GET", "/metrics").body)
    answer = api.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    samples = [sample for family in families.values() for sample in family.samples]
    assert len(samples) < 100
    assert {label for sample in samples for label in sample.labels} <= {
        "state", "outcome", "node", "name", "cluster", "version", "python",
    }  # fmt: skip
    for family in families.values():
        assert re.fullmatch(r"p2premap_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_count", "_sum", "_milliseconds", "_kb", "_mb"))
    assert {s.name for s in families["p2premap_attempts"].samples} == {"p2premap_attempts_total"}
    assert api.ask("GET", "/metrics", headers={"Authorization": None}).status == 401


def test_the_dashboard_asks_for_what_there_is(api: Api) -> None:
    families = text_string_to_metric_families(api.ask("GET", "/metrics").body.decode())
    there = {sample.name for family in families for sample in family.samples}
    panels = json.loads(GRAFANA.read_text())["panels"]
    asked = {
        name for panel in panels for target in panel["targets"] for name in re.findall(r"p2premap_\w+", target["expr"])
    }
    assert asked <= there
    assert len(panels) == len({panel["id"] for panel in panels}) > 10
