"""Several processes train what one does. Real processes over gloo, small networks, mostly in float64."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from stripes import striped_image

from alexnet.data.preparation import prepare
from alexnet.network.model import AlexNet
from alexnet.parallel.sharding import check_layout, sharding_of
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run
from alexnet.runtime.errors import UsageError
from alexnet.training.train import train

WORKER = Path(__file__).with_name("layout_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
RECIPE = {
    **{
        "recipe": "paper",
        "variant": "narrow",
        "crop_size": 64,
        "batch_size": 11,
        "lr": 0.002,
        "pixel_scaling": "std",
    },
    **{"precision": "float64", "seed": 5, "epochs": 8},
}
# Trainings by a single process, and their number of steps.
TRAININGS = {
    "paper": (20, {}),
    "batch": (6, {"normalization": "batch"}),
    "residual": (6, {"variant": "narrow-residual"}),
    "weird": (6, {"variant": "narrow-weird"}),
    "often": (6, {"fc_batch_size": 6}),
    "float32": (6, {"precision": "float32"}),
    "muon": (
        6,
        {"optimizer": "muon", "weight_averaging": 0.9, "images_per_draw": 4, "brightness": 0.1, "flip": "square"},
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of 23: batches of 11 divide into nothing."""
    folder, rng = tmp_path_factory.mktemp("parallel"), np.random.default_rng(0)
    for split, count in (("train", 23), ("val", 5)):
        for name in ("lying", "standing", "third"):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                image = striped_image(rng, name == "standing", 72)
                image.save(folder / "images" / split / name / f"{number}.png")
    prepare(folder / "images", folder / "data", size=72, progress=False)
    return folder / "data"


def training(data: Path, out: Path, name: str, steps: int | None = None, **options) -> dict:
    count, changes = TRAININGS[name]
    recipe = {} if options.get("resume") else {**RECIPE, **changes}
    return {"data": str(data), "out": str(out), "options": options, "recipe": recipe, "steps": steps or count}


def going_on_from(before: Path, data: Path, out: Path, **options) -> dict:
    """A training that begins with the weights of another."""
    one = training(data, out, "paper", 2, **options)
    return {**one, "recipe": {**one["recipe"], "init": str(before)}}


def torchrun(processes: int, *arguments: object, restarts: int = 0) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", str(restarts)]
    return [*command, "--nproc-per-node", str(processes), str(WORKER), *map(str, arguments)]


def run_all(folder: Path, processes: int, trainings: list[dict]) -> None:
    """Run trainings one after the other in the same processes."""
    listed = folder / f"trainings-{processes}.json"
    listed.write_text(json.dumps(trainings), encoding="utf-8")
    command = torchrun(processes, listed) if processes > 1 else [sys.executable, str(WORKER), str(listed)]
    done = subprocess.run(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The trainings by one process: a folder with a run for each."""
    folder = tmp_path_factory.mktemp("alone")
    trainings = [training(data, folder / name, name) for name in TRAININGS]
    run_all(folder, 1, [*trainings, going_on_from(folder / "paper", data, folder / "after")])
    return folder


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The training of `command_line` by a single process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    whole = {**training(data, folder / "run", "paper", keep_checkpoint=True), "steps": None}
    run_all(folder, 1, [{**whole, "recipe": {**RECIPE, "epochs": 3}}])
    return folder / "run"


@pytest.fixture(scope="module")
def two(data, alone, tmp_path_factory):
    """The same by two processes, in every layout that can."""
    folder = tmp_path_factory.mktemp("two")
    weird = "one-weird-trick"
    run_all(
        folder,
        2,
        [
            *(
                training(data, folder / f"data {name}", name, parallel="data")
                for name in ("paper", "batch", "residual", "muon")
            ),
            *(
                training(data, folder / f"towers {name}", name, parallel="towers")
                for name in ("paper", "batch", "often", "float32", "muon")
            ),
            going_on_from(alone / "paper", data, folder / "towers after", parallel="towers"),
            *(
                training(data, folder / f"{passing} {name}", name, parallel=weird, passing=passing)
                for passing, name in (
                    *(("at-once", "weird"), ("in-turn", "weird"), ("in-shares", "batch")),
                    *(("in-turn", "often"), ("in-shares", "often")),
                )
            ),
        ],
    )
    return folder


@pytest.fixture(scope="module")
def four(data, tmp_path_factory):
    """By four, of batches of 9 and 10."""
    folder = tmp_path_factory.mktemp("four")
    weird = "one-weird-trick"
    run_all(
        folder,
        4,
        [
            training(data, folder / "data batch", "batch", parallel="data"),
            training(data, folder / "in-turn weird", "weird", parallel=weird, passing="in-turn"),
            training(data, folder / "in-shares often", "often", parallel=weird),
        ],
    )
    return folder


def distance(run: Path, other: Path) -> float:
    """The largest difference of a weight, a velocity or a loss between the checkpoints of two runs."""
    ours, theirs = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (run, other))
    states = [json.loads(content["state"])["counters"] for content in (ours, theirs)]
    assert states[0]["step"] == states[1]["step"]
    assert states[0]["errors"] == states[1]["errors"]
    largest = abs(states[0]["loss_sum"] - states[1]["loss_sum"])
    tensors = []
    for content in (ours, theirs):
        remembered = [value for rule in content["optimizers"] for state in rule.values() for value in state.values()]
        tensors.append([*content["network"].values(), *content["average"].values(), *remembered])
    for a, b in zip(*tensors, strict=True):
        assert a.shape == b.shape
        assert a.stride() == b.stride()
        largest = max(largest, (a.double() - b.double()).abs().max().item())
    return largest


@pytest.mark.parametrize(
    "run",
    [
        *(
            "data paper",
            "data batch",
            "data residual",
            "data muon",
            "towers paper",
            "towers batch",
            "towers often",
            "towers muon",
        ),
        "towers after",
        *("at-once weird", "in-turn weird", "in-shares batch", "in-turn often", "in-shares often"),
    ],
)
def test_two_processes_train_what_one_does(alone, two, run):
    # Muon rounds to bfloat16, so a last bit before may be its last bit after.
    assert distance(two / run, alone / run.split()[1]) < (2e-2 if "muon" in run else 1e-9)


@pytest.mark.long
@pytest.mark.parametrize("run", ["data batch", "in-turn weird", "in-shares often"])
def test_four_processes_train_what_one_does(alone, four, run):
    assert distance(four / run, alone / run.split()[1]) < 1e-9


def test_towers_in_float32_are_equal_up_to_rounding(alone, two):
    assert distance(two / "towers float32", alone / "float32") < 1e-4


@pytest.mark.long
def test_a_run_goes_on_in_any_other_layout(data, alone, tmp_path):
    run = tmp_path / "run"
    first = training(data, run, "paper", 4, parallel="data")
    towers = training(data, run, "paper", 8, parallel="towers", resume=True)
    weird = training(data, run, "paper", 12, parallel="one-weird-trick", resume=True)
    run_all(tmp_path, 2, [first, towers, weird])
    run_all(tmp_path, 1, [training(data, run, "paper", 16, resume=True)])
    run_all(tmp_path, 4, [training(data, run, "paper", 20, parallel="data", resume=True)])
    assert distance(run, alone / "paper") < 1e-9


def test_what_is_reported_is_the_same(alone, two):
    """The epochs of metrics.jsonl: losses, errors, weights and updates of every layer, dead units."""
    for run in ("data paper", "towers paper"):
        ours, theirs = (
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            for folder in (two / run, alone / "paper")
        )
        for epoch, expected in zip(
            *([line for line in lines if line["event"] == "epoch"] for lines in (ours, theirs)), strict=True
        ):
            for name in ("train_loss", "train_error", "validation_loss", "validation_error"):
                assert epoch[name] == pytest.approx(expected[name], rel=1e-6)
            assert epoch["dead"] == pytest.approx(expected["dead"], abs=1e-6)
            for layer, values in expected["layers"].items():
                assert epoch["layers"][layer] == pytest.approx(values, rel=1e-6)


def test_the_linear_probe_of_pretrained_weights_is_of_the_whole_network(alone, two):
    ours, theirs = (Run.open(run).metrics("probe") for run in (alone / "after", two / "towers after"))
    assert len(ours) == 1
    assert ours[0]["layer"] == "fc7"
    assert theirs == ours


def test_the_bytes_that_towers_send_are_those_of_the_activations(two):
    lines = (two / "towers paper" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epoch = next(record for line in lines if (record := json.loads(line))["event"] == "epoch")
    sent = {name: values["bytes"] for name, values in epoch["traffic"].items()}
    trained, looked_at = 69, 15 + 9  # images of an epoch; validation, and a batch for dead units
    maps = 16 * 3 * 3 * 8  # half of conv2's 32 feature maps of 3×3 after pooling, float64
    assert sent["back from conv3"] == trained * maps
    assert maps * trained <= sent["into conv3"] <= maps * (trained + looked_at + 1)
    assert sent["back from fc7"] == trained * 17 * 8
    assert "gradients" not in sent or sent["gradients"] == 0


def processes_of(launcher: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split()]


def wait_until(ready, process: subprocess.Popen) -> None:
    while not ready():
        assert process.poll() is None
        time.sleep(0.05)


def command_line(data: Path, out: Path, *more: str) -> list[str]:
    arguments = map(str, (data, "--out", out, "--variant", "narrow", *more))
    recipe = ("--recipe", "paper", "--crop-size", "64", "--batch-size", "11", "--lr", "0.002", "--seed", "5")
    return [
        "train",
        *arguments,
        *recipe,
        "--pixel-scaling",
        "std",
        "--precision",
        "float64",
        "--epochs",
        "3",
        "--keep-checkpoint",
    ]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_killed_workers_start_again_and_nothing_is_lost(data, undisturbed, tmp_path):
    """In the middle of an epoch, twice; the result is that of an undisturbed single process."""
    out, moments = tmp_path / "run", random.Random(1)
    arguments = command_line(data, out, "--parallel", "data", "--checkpoint-interval", "0.1")
    with subprocess.Popen(
        torchrun(2, *arguments, restarts=4), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as group:
        for _ in range(2):
            before = (out / "checkpoint.pt").stat().st_mtime_ns if (out / "checkpoint.pt").exists() else 0
            wait_until(
                lambda before=before: (out / "checkpoint.pt").exists()
                and (out / "checkpoint.pt").stat().st_mtime_ns > before,
                group,
            )
            time.sleep(moments.uniform(0, 0.1))
            os.kill(moments.choice(processes_of(group.pid)), signal.SIGKILL)
        said = group.communicate()[1]
    assert group.returncode == 0, said
    assert "resuming" in said
    assert distance(out, undisturbed) < 1e-9


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.long
def test_a_process_that_does_not_answer_ends_the_training_in_one_clear_line(data, tmp_path):
    out = tmp_path / "run"
    arguments = command_line(data, out, "--parallel", "towers", "--checkpoint-interval", "0.1", "--peer-timeout", "4")
    with subprocess.Popen(torchrun(2, *arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as group:
        wait_until((out / "checkpoint.pt").exists, group)
        hung = processes_of(group.pid)[1]
        os.kill(hung, signal.SIGSTOP)
        start = time.monotonic()
        said = ""
        for line in group.stderr:
            said += line
            if "no answer for 4 s from another process at step" in line:
                break
        os.kill(hung, signal.SIGKILL)
        group.communicate()
    assert line.startswith("alexnet: process 0 of 2: no answer for 4 s"), said
    assert "--resume continues from the last checkpoint" in line
    assert time.monotonic() - start < 60
    assert group.returncode != 0


@pytest.mark.parametrize("passing", [None, "at-once", "in-turn", "in-shares"])
@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("fc_batch_size", [None, 12])
def test_every_image_of_a_batch_is_read_by_exactly_one_process(passing, size, fc_batch_size):
    if fc_batch_size and passing == "in-turn":
        fc_batch_size = -(-40 // size)  # one block per process, or it is refused
    recipe = recipes()["paper"].override({"batch_size": 40, "fc_batch_size": fc_batch_size})
    layout = ("one-weird-trick", recipe, size, passing) if passing else ("data", recipe, size)
    sharding = sharding_of(*layout)
    for count in (1, 6, 7, 39, 40):
        assert sorted(np.concatenate([sharding.rows(count, rank) for rank in range(size)])) == list(range(count))
        for rank in range(size):
            blocks = sharding.blocks(count, rank)
            seen = [number for block in blocks for number in range(count)[block.images]]
            assert seen == (list(range(count)) if passing else [])
            mine = [sharding.rows(count, rank)[block.mine] for block in blocks]
            for block, images in zip(blocks, mine, strict=True):
                assert set(images) <= set(range(count)[block.images])
                assert len(images) == block.sizes[rank]


def test_without_torchrun_it_says_how_to_start_several(data, tmp_path):
    with pytest.raises(UsageError, match="add --processes N, or start it with `torchrun --nproc-per-node N"):
        train(data, tmp_path / "run", parallel="data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("init", "wrong", "code", "line"),
    [
        ("nowhere", "", 2, "no init 'nowhere'"),
        pytest.param("he", "-that-is-not-there", 1, "does not exist: make it with", marks=pytest.mark.long),
    ],
)
def test_processes_say_what_is_wrong_once_and_are_not_started_again(data, tmp_path, init, wrong, code, line):
    command = [sys.executable, "-m", "alexnet", "train", f"{data}{wrong}", "--out", tmp_path / "run"]
    command += ["--processes", "2", "--parallel", "towers", "--init", init]
    done = subprocess.run(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("alexnet:") == 1, done.stderr
    assert line in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("layout", "size", "variant", "changes", "message"),
    [
        ("towers", 4, "paper", {}, "needs 2 processes, one per tower, not 4"),
        ("towers", 2, "caffe", {}, "norm1 of caffe crosses them"),
        ("towers", 2, "one-tower", {}, "it has none"),
        ("data", 8, "paper", {"batch_size": 4}, "8 processes can't share batches of 4 images"),
        ("data", 2, "paper", {"fc_batch_size": 4}, "use --parallel one-weird-trick"),
        ("one-weird-trick", 4, "one-weird-trick", {"fc_batch_size": 64}, "so with 4 processes --fc-batch-size is 32"),
    ],
)
def test_a_layout_refuses_what_it_cannot_compute_exactly(layout, size, variant, changes, message):
    with torch.device("meta"):
        network = AlexNet(variant)
    passing = "in-turn" if layout == "one-weird-trick" else "in-shares"
    with pytest.raises(UsageError, match=message):
        check_layout(layout, network, recipes()["paper"].override(changes), 1000, size, passing)
