"""The parts of `alexnet bench` that are not in the default run, on small inputs: their output, not their speed."""

import json
import sys
from pathlib import Path

import pytest

from alexnet.bench import parallel
from alexnet.bench.equality import equality
from alexnet.bench.parts import Settings
from alexnet.cli.main import main
from alexnet.parallel.plan import Work

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def published(name: str) -> dict:
    """A file of results."""
    (file,) = sorted(RESULTS.glob(f"{name}.json"))[:1]
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_plan_of_the_table_is_the_published_one(tmp_path, capsys) -> None:
    assert main(["bench", "--only", "parallel-plan", "--results", str(tmp_path)]) == 0
    plan = json.loads((tmp_path / "parallel.json").read_text(encoding="utf-8"))["plan"]
    assert plan["command"] == "alexnet bench --only parallel-plan --rounds 3"
    expected = published("parallel")["plan"]
    assert plan["scaling"] == [pytest.approx(row) for row in expected["scaling"]]
    assert plan["published"] == [pytest.approx(row) for row in expected["published"]]
    assert plan["links_bytes_per_second"] == expected["links_bytes_per_second"]


@pytest.mark.parametrize("row", published("parallel")["exchange"]["rows"], ids=lambda row: row["layout"])
def test_the_computed_bytes_are_the_counted_ones(row) -> None:
    computed = parallel.computed_bytes(row["layout"], row["processes"], Work.of(row["variant"]), row["batch"])
    assert computed == row["bytes_computed"]
    assert computed == pytest.approx(row["bytes_counted"], rel=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.long
def test_two_processes_count_the_bytes_that_they_send(tmp_path) -> None:
    options = {"variant": "cifar-18pct", "crop_size": 32, "measure_tensors": True}
    first, second = parallel._train(tmp_path, 2, batch_size=4, steps=1, images=12, parallel="data", **options)
    sent = sum(size for size, _ in first["traffic"].values())
    work = Work.of("cifar-18pct", classes=12)
    assert sent == pytest.approx(parallel.computed_bytes("data", 2, work, 4), rel=1e-3)
    assert first["parameters"] == second["parameters"] == work.convolution_parameters + work.full_parameters
    assert first["tensor_bytes"] > 8 * first["parameters"]
    assert first["own_bytes"] > 0


@pytest.mark.long
def test_the_optimized_network_stays_as_near_to_float64_as_the_plain_one(tmp_path) -> None:
    result = equality(Settings(tmp_path, batch_size=2), steps=1, side=67)
    assert result.keys() <= published("equality").keys()
    assert 0 < result["fast from float64"] < 5 * result["plain float32 from float64"] < 0.05


@pytest.mark.long
def test_search_reports_the_recall_of_each_method(tmp_path) -> None:
    pytest.importorskip("faiss")
    from alexnet.bench.search import search

    result = search(Settings(tmp_path), count=2000)
    assert result.keys() <= published("search-*").keys()
    assert result["index"].keys() == published("search-*")["index"].keys()
    assert result["images"] == 2000
    assert result["index"]["recall at 10"] > 0.9
    assert result["bytes on disk"]["features.npy"] == 2000 * 4096 * 4 + 128


@pytest.mark.long
def test_the_server_is_compared_with_the_classifier(tmp_path) -> None:
    pytest.importorskip("fastapi")
    from alexnet.bench.serve import serve

    options = {"clients": 2, "images_per_client": 2, "loads": [(2, 6)], "requests": 160}
    result = serve(Settings(tmp_path, rounds=1), variant="convolutions", **options)
    assert result.keys() <= published("serve-amd*").keys()
    assert len(result["memory"]["megabytes"]) == 6
    assert (result["memory"]["requests"], result["memory"]["refused"]) == (160, 0)
    assert result["latency"].keys() == published("serve-*")["latency"].keys()
    assert result["throughput"].keys() == published("serve-*")["throughput"].keys()
    assert result["throughput"]["served_per_second"] > 0
    (row,) = result["load"]["photographs"]
    assert (row["clients"], row["requests"], row["refused"]) == (2, 6, 0)
    assert 0 < row["p50_ms"] <= row["p99_ms"]
