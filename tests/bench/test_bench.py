"""`alexnet bench` on small batches: what it prints, not how fast anything is."""

import json
import statistics

import pytest
import torch

from alexnet.bench.lrn import normalization
from alexnet.bench.peers import TextbookTraining, common_loader, photographs
from alexnet.bench.steps import OurTraining
from alexnet.bench.timing import compared, in_turn
from alexnet.cli.main import main
from alexnet.runtime.provenance import machine_slug


def test_one_bench_as_json_on_stdout_and_in_a_file(capsys, tmp_path) -> None:
    arguments = ["bench", "--only", "train-step", "--batch-size", "2", "--rounds", "1", "--json"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    out = capsys.readouterr()
    report = json.loads(out.out)
    assert report["train-step"]["images_per_second"] > 0
    assert [row["at_least"] for row in report["train-step"]["comparisons"]] == [7.0, 0.7]
    assert "textbook" in out.err
    (file,) = tmp_path.glob("bench-*.json")
    written = json.loads(file.read_text())["train-step"]
    assert written["command"] == "alexnet bench --only train-step --batch-size 2 --rounds 1"
    assert {"machine", "date", "versions"} <= set(written)


def test_what_is_not_timed_now_stays_in_the_file(capsys, tmp_path) -> None:
    file = tmp_path / f"bench-{machine_slug()}.json"
    file.write_text(json.dumps({"startup": {"milliseconds": 1}, "lrn": {"milliseconds": 2}}))
    assert main(["bench", "--only", "startup", "--rounds", "1", "--results", str(tmp_path)]) == 0
    written = json.loads(file.read_text())
    assert list(written) == ["lrn", "startup"]
    assert written["lrn"] == {"milliseconds": 2}
    assert written["startup"]["milliseconds"] > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "warp"], "unknown bench 'warp'; choose from: train-step"),
        (["--batch-size", "0"], "batch size is 0"),
        (["--images", "/nowhere"], "/nowhere is not a folder"),
    ],
)
def test_invalid_usage_is_one_line(options, message, capsys) -> None:
    assert main(["bench", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_photograph_that_can_not_be_read_is_named_at_once(tmp_path, capsys) -> None:
    good, bad = photographs(tmp_path, 2)
    bad.write_bytes(bad.read_bytes()[:3000])
    assert main(["bench", "--only", "prepare", "--images", str(good.parents[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"alexnet: {bad} can't be read: truncated; take it out of {good.parents[1]}"


def test_ratios_are_of_a_round_and_the_median_of_them_counts() -> None:
    row = compared("a", "b", [1.0, 2.0, 4.0], [3.0, 4.0, 4.0], 1.5)
    assert (row.ratio, row.spread) == (2.0, (1.0, 3.0))


def test_sides_take_turns() -> None:
    calls: list[str] = []
    seconds = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert all(len(values) == 2 and statistics.median(values) >= 0 for values in seconds.values())


def test_both_trainings_learn_their_batch() -> None:
    for training in (OurTraining(4, dtype=torch.float32), TextbookTraining(4)):
        before = [p.detach().clone() for p in training.network.parameters()]
        training.step()
        assert any(not torch.equal(p, b) for p, b in zip(training.network.parameters(), before, strict=True))


def test_the_operations_of_a_step_are_the_papers_multiply_adds_three_times_but_for_the_images_gradient() -> None:
    # paper.md, section 1: 724,406,816 multiply-adds, of which conv1 has 105,415,200.
    assert OurTraining(1).operations() == 2 * (3 * 724_406_816 - 105_415_200)


def test_normalization_is_compared_in_both_precisions() -> None:
    rows = normalization(1, 1)
    assert [row.at_least for row in rows] == [30.0, 0.5] * 4


def test_the_common_recipe_gives_crops(tmp_path) -> None:
    files = photographs(tmp_path, 4)
    images, labels = next(iter(common_loader(files, 4, 1)))
    assert images.shape == (4, 3, 224, 224)
    assert 0.5 < float(images.std()) < 2
    assert len(labels) == 4
