"""`Classifier` and `alexnet predict` on real files, against the network asked directly."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_runs import make_run

import alexnet
from alexnet import AlexNetError, Classifier, Prediction, PreparedDataset, Run, UsageError
from alexnet.prediction.classifier import UnreadableImage
from alexnet.prediction.inputs import NamedImage, find_images


def process(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "alexnet", "predict", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, input=stdin, check=False)


@pytest.fixture(scope="module")
def run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = make_run(tmp_path_factory.mktemp("run") / "run", striped_data, seed=1, variant="convolutions")
    yield path
    (path / "model.safetensors").unlink()


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return Classifier.load(run, device="cpu")


@pytest.fixture(scope="module")
def folder(striped_folder, striped_data) -> Path:
    """The folder that `striped_data` was prepared from: 24 images in val, 72 × 72, so that nothing is scaled."""
    return striped_folder(12, 12) / "val"


@torch.no_grad()
def direct_probabilities(run: Path, images: list[np.ndarray]) -> np.ndarray:
    """Softmax of the central crop of each image."""
    network, preprocess = Run.open(run).load()
    crop_size, mean = preprocess.crop_size, preprocess.mean.numpy()
    edge = (72 - crop_size) // 2
    window = slice(edge, edge + crop_size)
    crops = [(image.astype(np.float32) - mean)[window, window].transpose(2, 0, 1) / 64 for image in images]
    return network(torch.from_numpy(np.stack(crops))).double().softmax(1).numpy()


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_paths_bytes_pil_images_and_arrays_get_equal_predictions(classifier, run, folder) -> None:
    path = files_of(folder)[3]
    array = np.asarray(Image.open(path))
    expected = direct_probabilities(run, [array])[0]
    forms = [path, str(path), path.read_bytes(), Image.open(path), array]
    for result in classifier.predict(forms):
        assert [share for _, share in result.top] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
        assert result.label == classifier.classes[expected.argmax()]
        assert result.probability == result.top[0][1]
    assert [r.source for r in classifier.predict(forms)] == [
        str(path),
        str(path),
        "image 2",
        "image 3",
        "image 4",
    ]


def test_predictions_keep_the_order_of_the_images_for_any_batch_size(classifier, run, folder) -> None:
    paths = files_of(folder)
    expected = direct_probabilities(run, [np.asarray(Image.open(path)) for path in paths])
    for size in (1, 7, 64):
        results = classifier.predict(iter(paths), batch_size=size)
        assert [result.source for result in results] == [str(path) for path in paths]
        standing = [dict(result.top)["standing"] for result in results]
        np.testing.assert_allclose(standing, expected[:, 1], atol=1e-5)


def test_one_image_gives_a_list_of_one_and_an_array_of_images_one_each(classifier, folder) -> None:
    array = np.asarray(Image.open(files_of(folder)[0]))
    assert len(classifier.predict(files_of(folder)[0])) == 1
    assert len(classifier.predict(array)) == 1
    assert len(classifier.predict(np.stack([array, array[::-1]]))) == 2
    assert classifier.predict([]) == []


def test_gray_arrays_are_gray_images(classifier) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (72, 72), dtype=np.uint8)
    flat, deep = classifier.predict([gray, np.repeat(gray[:, :, None], 3, axis=2)])
    assert flat.top == deep.top


def test_top_limits_the_classes(classifier, folder) -> None:
    (result,) = classifier.predict(files_of(folder)[0], top=1)
    assert len(result.top) == 1


def test_ten_views_are_those_of_evaluate(classifier, run, striped_data) -> None:
    split = PreparedDataset.open(striped_data).split("val")
    images = split.gather(np.arange(len(split)))
    shares = np.array([dict(result.top)["standing"] for result in classifier.predict(images, views=10)])
    evaluation = alexnet.evaluate(run, striped_data, split="val", views=10)
    of_label = np.where(split.labels == 1, shares, 1 - shares)
    np.testing.assert_allclose(of_label, evaluation.predictions.label_probability, atol=1e-6)


def test_predict_decodes_and_cuts_as_prepare_does(classifier, run, tmp_path) -> None:
    """A large JPEG that lies on its side: turned, scaled and cut as `alexnet prepare` does it."""
    rng = np.random.default_rng(0)
    blurred = Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)).resize((300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / "images/train" / name).mkdir(parents=True)
        blurred.save(tmp_path / f"images/train/{name}/x.jpg", exif=exif, quality=90)
    dataset = alexnet.prepare(tmp_path / "images", tmp_path / "data", size=72, progress=False)
    prepared = dataset.split("train")[0][0]
    results = classifier.predict([tmp_path / "images/train/a/x.jpg", prepared])
    assert results[0].top == results[1].top


def test_unreadable_images_are_named_and_the_others_classified(classifier, folder, tmp_path) -> None:
    good, text, empty = files_of(folder)[0], tmp_path / "text.jpg", tmp_path / "empty.png"
    text.write_text("not an image", encoding="utf-8")
    empty.touch()
    bad = [text, empty, tmp_path / "missing.jpg", tmp_path, np.zeros(5, np.uint8), 17]
    results = list(classifier.stream([good, *bad, good]))
    assert [type(result) for result in results] == [Prediction, *[UnreadableImage] * 6, Prediction]
    assert [result.source for result in results[1:5]] == [str(path) for path in bad[:4]]
    reasons = [result.reason for result in results[1:7]]
    assert "No such file" in reasons[2]
    assert "folder" in reasons[3]
    assert "(5,)" in reasons[4]
    assert "int is no image" in reasons[5]
    with pytest.raises(AlexNetError, match=r"text\.jpg"):
        classifier.predict([good, *bad])


def test_a_named_image_keeps_its_name(classifier, folder) -> None:
    (result,) = classifier.predict(NamedImage("uploaded", files_of(folder)[0].read_bytes()))
    assert result.source == "uploaded"


def test_memory_does_not_grow_with_the_number_of_images(classifier, folder) -> None:
    """Images are asked for as they are needed, not all at once."""
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield files_of(folder)[asked % 24]

    results = classifier.stream(endless(), batch_size=4)
    for _ in range(20):
        next(results)
    results.close()
    assert asked <= 20 + 3 * 4


@pytest.mark.parametrize("wrong", [{"top": 0}, {"views": 3}, {"batch_size": 0}])
def test_invalid_arguments_are_usage_errors(classifier, folder, wrong) -> None:
    with pytest.raises(UsageError, match=f"is {next(iter(wrong.values()))}"):
        classifier.predict(files_of(folder)[:1], **wrong)


def test_folders_are_walked_in_order_for_images_only(folder, tmp_path) -> None:
    for name in ("b/2.jpg", "b/10.PNG", "a.tiff", ".hidden/x.jpg", "b/.DS_Store", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inputs = find_images([tmp_path, tmp_path / "notes.txt"])
    names = [os.path.relpath(image.source, tmp_path) for image in inputs]
    assert names == ["a.tiff", os.path.join("b", "10.PNG"), os.path.join("b", "2.jpg"), "notes.txt"]
    assert sum(left.files for left in inputs.ignored) == 1


def test_predict_prints_a_line_per_image(command, run, folder, classifier) -> None:
    path = files_of(folder)[0]
    done = command("predict", run, path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    label, share = classifier.predict(path)[0].top[0]
    assert line.split()[:3] == [str(path), f"{share:.1%}", label]


def test_predict_json_of_a_folder_is_a_list_in_order(command, run, folder, classifier) -> None:
    done = command("predict", run, folder, "--json", "--top", "1")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    expected = classifier.predict(files_of(folder), top=1)
    assert [result["source"] for result in results] == [p.source for p in expected]
    assert [result["label"] for result in results] == [p.label for p in expected]
    assert all(
        result["top"] == [{"label": result["label"], "probability": result["probability"]}] for result in results
    )
    assert len(done.stdout.splitlines()) == 24 + 2


def test_predict_csv_has_a_header_and_names_unreadable_files_on_stderr(command, run, folder, tmp_path) -> None:
    (tmp_path / "a,\nb.jpg").write_bytes(files_of(folder)[0].read_bytes())
    (tmp_path / "broken.jpg").write_bytes(files_of(folder)[0].read_bytes()[:100])
    done = command("predict", run, tmp_path, "--csv", "--views", "10")
    assert done.returncode == 1
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row["source"] == str(tmp_path / "a,\nb.jpg")
    assert {row["label"], row["label_2"]} == {"lying", "standing"}
    assert float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1, abs=1e-5)
    assert f"{tmp_path / 'broken.jpg'}: " in done.stderr
    assert "1 of 2 images unreadable" in done.stderr


def test_predict_reads_one_image_from_standard_input(run, folder) -> None:
    path = files_of(folder)[5]
    done = process(run, "-", path, "-", "--json", stdin=path.read_bytes())
    # Read to its end, standard input holds no second image.
    assert done.returncode == 1
    assert b"-: empty" in done.stderr
    piped, named = json.loads(done.stdout)
    assert piped["source"] == "-"
    assert piped["top"] == named["top"]


def test_predict_without_images_or_run_is_one_clear_line(command, run, folder, tmp_path) -> None:
    for arguments in ((run, tmp_path), (tmp_path, files_of(folder)[0])):
        done = command("predict", *arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert str(tmp_path) in done.stderr
    assert command("predict", run, files_of(folder)[0], "--json", "--csv").returncode == 2


def test_predict_prints_names_that_are_not_unicode_as_they_are(run, folder, tmp_path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as file:
            file.write(files_of(folder)[0].read_bytes())
    except OSError:
        pytest.skip("this file system has Unicode names only")
    done = process(run, tmp_path, "--csv")
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def test_importing_alexnet_does_not_import_torch() -> None:
    code = "import sys, alexnet, alexnet.cli.main; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_alexnet_exports_exactly_what_it_lists() -> None:
    assert set(alexnet.__all__) <= set(dir(alexnet))
    for name in alexnet.__all__:
        assert getattr(alexnet, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = alexnet.nothing
