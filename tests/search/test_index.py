"""The stored features of a split: computed once, atomically, and again when stale; and the command as a process."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_runs import make_run

from alexnet import AlexNetError, PreparedDataset, Run, UsageError
from alexnet.data.preparation import prepare
from alexnet.network.features import layer_features
from alexnet.search import binary_codes, open_index
from alexnet.search import index as index_module
from alexnet.search.search import search


@pytest.fixture(scope="module")
def run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = make_run(tmp_path_factory.mktemp("searched") / "run", striped_data, 1)
    yield path
    (path / "model.safetensors").unlink()


def test_features_are_the_activations_of_fc7(run: Path, striped_data: Path) -> None:
    split = PreparedDataset.open(striped_data).split("train")
    network, preprocess = Run.open(run).load()
    images = split.gather(np.array([5, 0, 23]))
    (found,) = layer_features(network, preprocess, [images])
    x = preprocess.center(torch.from_numpy(images))
    with torch.inference_mode():
        for name, module in network.named_children():
            x = module(x)
            if name == "relu7":
                break
    np.testing.assert_allclose(found, x.numpy(), rtol=1e-5, atol=1e-6)
    assert found.shape == (3, 4096)


def test_an_image_of_the_split_is_nearest_to_itself_at_distance_0(run: Path, striped_data: Path) -> None:
    index = open_index(run, striped_data)
    asked = index.features(index.split.gather(np.array([3])))  # alone, where the index was computed in batches
    distances, rows = index.nearest(asked, 30)
    assert rows.shape == (1, len(index)) == (1, 24)
    assert (rows[0, 0], distances[0, 0]) == (3, 0)
    stored = np.asarray(index.stored, dtype=np.float64)
    np.testing.assert_allclose(distances[0, 1:], np.sort(np.linalg.norm(stored - stored[3], axis=1))[1:], rtol=1e-4)


def test_features_are_computed_once_and_again_for_other_weights_or_images(
    striped_data: Path, striped_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", striped_data, 1, variant="convolutions")
    built: list[Path] = []
    write = index_module.write_atomic
    monkeypatch.setattr(index_module, "write_atomic", lambda path, content: (built.append(path), write(path, content)))
    one = open_index(run, striped_data)
    np.testing.assert_array_equal(open_index(run, striped_data).stored, one.stored)
    assert len(built) == 1

    make_run(tmp_path / "run", striped_data, 2, variant="convolutions")
    other = open_index(run, striped_data)
    assert len(built) == 2
    assert not np.allclose(other.stored, one.stored)
    assert not one.folder.exists()

    data = tmp_path / "data"
    prepare(striped_folder(9, 5), data, size=72, progress=False)
    assert len(open_index(run, data)) == 14
    assert len(built) == 3
    (run / "model.safetensors").unlink()


def test_a_killed_build_leaves_nothing_half_written(run: Path, striped_data: Path) -> None:
    """Killed in the middle of writing the features of val; the next one starts over and sweeps."""
    code = (
        "import sys, time\n"
        "from alexnet.search import index\n"
        "compute = index.layer_features\n"
        "def slow(*given):\n"
        "    for features in compute(*given):\n"
        "        yield features\n"
        "        time.sleep(600)\n"
        "index.BATCH_SIZE, index.layer_features = 8, slow\n"
        "index.open_index(sys.argv[1], sys.argv[2], split='val')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(run), str(striped_data)])
    try:
        deadline = time.monotonic() + 300
        while not (begun := list(run.glob("search/val-*/.*.tmp"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not list(run.glob("search/val-*/features.npy"))
    index = open_index(run, striped_data, split="val")
    assert index.stored.shape == (24, 4096)
    assert not begun[0].exists()
    assert [path.name for path in index.folder.iterdir()] == ["features.npy"]


def test_index_and_codes_report_their_recall_and_are_stored(
    run: Path, striped_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(binary_codes, "STEPS", 50)
    index = open_index(run, striped_data)
    queries = index.features(index.split.gather(np.arange(6)))
    exact = index.nearest(queries, 24)
    found = index.nearest(queries, 24, "index")
    np.testing.assert_array_equal(found[1], exact[1])  # of 24 images all lists are read
    np.testing.assert_array_equal(found[0], exact[0])
    bits, rows = index.nearest(queries, 24, "codes")
    assert (bits[:, 0] == 0).all()
    assert (np.sort(rows) == np.arange(24)).all()
    assert index.recall("index") == {"10": 1, "100": 1}
    assert 0 < index.recall("codes")["10"] < index.recall("codes")["100"] == 1
    again = open_index(run, striped_data)
    monkeypatch.setattr(index_module.Index, "_build", None)  # stored methods are not built again
    np.testing.assert_array_equal(again.nearest(queries, 24, "codes")[1], rows)


def test_misfits_are_refused_in_one_line(
    run: Path, striped_data: Path, striped_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_index(run, striped_data)
    with pytest.raises(AlexNetError, match="has no split 'test': it has train, val"):
        open_index(run, striped_data, split="test")
    prepare(striped_folder(3, 3), tmp_path / "small", size=64, progress=False)
    with pytest.raises(AlexNetError, match=r"takes images of 72 pixels, .* has 64"):
        open_index(run, tmp_path / "small")
    with pytest.raises(UsageError, match="unknown method 'best'; choose from: auto, exact, index, codes"):
        index.nearest(index.stored[:1], 1, "best")
    with pytest.raises(UsageError, match="k is 0"):
        index.nearest(index.stored[:1], 0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(AlexNetError, match=r"pip install 'alexnet\[search\]'"):
        index.nearest(index.stored[:1], 1, "codes")
    assert index.nearest(index.stored[:1], 1)[1] == 0


def test_a_run_without_weights_is_an_error(striped_data: Path, tmp_path: Path) -> None:
    (make_run(tmp_path / "run", striped_data, 1, variant="convolutions") / "model.safetensors").unlink()
    with pytest.raises(AlexNetError, match="the training has not saved these weights yet"):
        open_index(tmp_path / "run", striped_data)


def test_the_command_names_unreadable_files_and_searches_the_rest(
    command, run: Path, striped_data: Path, tmp_path: Path
) -> None:
    split = PreparedDataset.open(striped_data).split("train")
    Image.fromarray(split[7][0]).save(tmp_path / "ask.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    arguments = ("search", run, tmp_path, "--data", striped_data, "--top", 3)
    table, as_json = command(*arguments), command(*arguments, "--json")
    assert table.returncode == as_json.returncode == 1
    assert f"alexnet: {tmp_path / 'bad.png'}: " in table.stderr
    assert "nearest of 24 train images by Euclidean distance in fc7, exactly" in table.stderr
    lines = table.stdout.splitlines()
    assert lines[0] == str(tmp_path / "ask.png")
    assert lines[1].split() == ["0.00", PreparedDataset.open(striped_data).classes[split[7][1]], split.paths(7)]
    assert len(lines) == 4
    (result,) = json.loads(as_json.stdout)
    assert result["source"] == str(tmp_path / "ask.png")
    assert result["nearest"][0]["path"] == split.paths(7)
    assert [near["distance"] for near in result["nearest"]] == sorted(near["distance"] for near in result["nearest"])


def test_the_images_in_an_archive_are_queries_and_a_bad_one_does_not_stop_the_rest(
    run: Path, striped_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = PreparedDataset.open(striped_data).split("train")
    content = io.BytesIO()
    Image.fromarray(split[7][0]).save(content, "PNG")
    with zipfile.ZipFile(tmp_path / "queries.zip", "w") as archive:
        archive.writestr("a/bad.png", b"no image")
        archive.writestr("a/query.png", content.getvalue())
        archive.writestr("notes.txt", b"x")
    unreadable = search(run, [tmp_path / "queries.zip"], striped_data, top=1, form="json", device="cpu")
    out, err = capsys.readouterr()
    assert unreadable == 1
    assert "bad.png" in err
    assert "1 of 2 images unreadable" in err
    assert "notes.txt" in err
    (result,) = json.loads(out)
    assert result["source"].endswith("query.png")
    assert [near["path"] for near in result["nearest"]] == [split.paths(7)]
