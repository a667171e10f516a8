"""The starter: pretrained weights of the five convolutions, trained on Tiny ImageNet and shipped with the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments.trials import measure_once, prepare_once, train_once
from alexnet.report.filters import first_layer_kernels
from alexnet.report.style import png
from alexnet.runs.run import MEAN, Run
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_atomic, write_csv
from alexnet.runtime.provenance import provenance, write_result

# Classes of the experiment `transfer`, which the starter must not see: nine, and the twenty of another selection.
HELD_OUT = (
    *("n01882714", "n02099601", "n02123045", "n02504458", "n03100240", "n04146614", "n04285008", "n07747607"),
    *("n09246464", "n01784675", "n02085620", "n02094433", "n02226429", "n02410509", "n02415577", "n02909870"),
    *("n03733131", "n03763968", "n03814639", "n03838899", "n03980874", "n03983396", "n04074963", "n04251144"),
    *("n04356056", "n04456115", "n04501370", "n04507155", "n07715103"),
)

CHANGES: dict[str, Any] = {
    "init": "he",
    "variant": "convolutions",
    "crop_size": 60,
    "min_crop_area": 0.35,  # 500 images per class are seen 29 times
    "brightness": 0.2,
    "early_input_size": 67,
    "input_size": 115,
    "early_share": 0.69,  # 20 of the 29 epochs, which take half of the time
    "batch_size": 256,
    "epochs": 29,
}
"""Changes to the recipe `small`."""

FILE, CARD = "starter.safetensors", "starter.md"


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = ()) -> str:
    """Train on Tiny ImageNet and write the starter and its model card to `work`, its first-layer kernels to `results`.

    `data`: the folder tiny-imagenet-200. Finished trials are not repeated and interrupted ones resume. The starter is
    the network of the first seed. Returns a summary of one line.
    """
    if len(data) != 1:
        raise UsageError(
            "give the folder tiny-imagenet-200 with --data (http://cs231n.stanford.edu/tiny-imagenet-200.zip)"
        )
    dataset = prepare_once(partial(write_source, Path(data[0]), work / "images.csv"), work / "data", size=64)
    runs = [
        measure_once(work / f"seed-{seed}.json", partial(_measure, work / f"seed-{seed}", dataset, seed))
        for seed in seeds
    ]
    first = Run.open(work / f"seed-{seeds[0]}")
    report = {
        "description": "the five convolutions of the paper's network, trained on Tiny ImageNet without the classes in "
        "`held_out`; accuracy on its validation images of the other classes",
        "held_out": list(HELD_OUT),
        "classes": len(dataset.classes),
        "images": dataset.counts,
        "changes": CHANGES,
        "recipe": first.config.recipe.to_dict(),
        "runs": runs,
        **provenance(command),
    }
    write_atomic(work / FILE, export_convolutions(first))
    write_atomic(work / CARD, model_card(report).encode())
    write_result(results, report)
    write_atomic(results.with_name("starter-kernels.png"), png(first_layer_kernels(first.load()[0])))
    return (
        f"{runs[0]['views_10']['top1']:.1%} accuracy on {len(dataset.split('val')):,} validation images; {work / FILE}"
    )


def write_source(folder: Path, path: Path) -> Path:
    """Write a CSV of path, label and split of the images of all classes that are not held out."""
    try:
        names = (folder / "wnids.txt").read_text(encoding="utf-8").split()
        truth = [
            line.split("\t")
            for line in (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
        ]
    except OSError as error:
        raise AlexNetError(f"{folder} is not the folder of Tiny ImageNet: {error.filename} is missing") from None
    known = sorted(set(names).difference(HELD_OUT))
    rows: list[tuple[object, str, str]] = [("path", "label", "split")]
    for name in known:
        images = sorted((folder / "train" / name / "images").glob("*.JPEG"))
        rows += [(image.resolve(), name, "train") for image in images]
    images_of_val = (folder / "val" / "images").resolve()
    rows += [(images_of_val / file, name, "val") for file, name, *_ in truth if name in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, rows)
    return path


def export_convolutions(run: Run) -> bytes:
    """Return the convolutions and batch normalization of a run as safetensors in half precision, with its config."""
    network, preprocess = run.load()
    output = network.output_layer
    tensors = {name: array for name, array in network.state_dict().items() if name.partition(".")[0] != output}
    halves = {name: array.half() if array.is_floating_point() else array for name, array in tensors.items()}
    if not all(bool(array.isfinite().all()) for array in halves.values()):
        raise AlexNetError(f"{run.path}: some weights exceed the range of half precision")
    contiguous = {name: array.contiguous() for name, array in {**halves, MEAN: preprocess.mean}.items()}
    # The path of the images is private.
    known = {"name": "Tiny ImageNet", "counts": run.config.dataset["counts"]}
    described = json.dumps({**run.config.to_dict(), "dataset": known}, ensure_ascii=False)
    return save(contiguous, {"alexnet.config": described, "format": "pt"})


def model_card(report: dict[str, Any]) -> str:
    """Return the model card of the starter from its result."""
    first, images, changes = report["runs"][0], report["images"], report["changes"]
    crop = changes["crop_size"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return f"""# The starter: pretrained convolutions

The five convolutions of the paper's AlexNet (two towers, 2.33 million weights) with batch normalization, in half
precision. `alexnet train` starts from them when there are few images. The fully connected layers are not included.

## Data

Tiny ImageNet: images of ImageNet at 64×64 pixels, 500 per class for training and 50 for validation. These classes are
held out for the experiment `transfer`: {", ".join(report["held_out"])}. The other {report["classes"]} classes have
{images["train"]:,} training and {images["val"]:,} validation images.

## Training

`{report["command"]}` on {report["date"]}; {report["machine"]}; {versions}.
Seed {first["seed"]}, {report["recipe"]["epochs"]} epochs, {first["training_seconds"] / 3600:.1f} hours: the recipe
`small` with {", ".join(f"{name} {value}" for name, value in changes.items())}. Random
rectangles of at least {changes["min_crop_area"]:.0%} of an image are cropped to {crop}×{crop} pixels and resized to
{changes["early_input_size"]} pixels for the first {changes["early_share"]:.0%} of the run and to
{changes["input_size"]} pixels for the rest, which a CPU can afford; the kernels do not depend on the size.

## Accuracy

Top-1 accuracy on the validation images: {first["views_1"]["top1"]:.2%} with one view and
{first["views_10"]["top1"]:.2%} with ten views; top-5 accuracy {first["views_10"]["top5"]:.2%}. `alexnet reproduce
transfer` measures the value of the weights on other images.

## License

The weights are under the license of this package (MIT). The images are those of ImageNet, which its authors provide for
non-commercial research and teaching; the photographers own their rights. It is not settled whether weights inherit
restrictions from the images. If that matters, train without them: `alexnet train --init he`.

## Limits

The training images are small, centered images of objects and animals; fine texture at the full resolution of a camera
is not represented. One seed. The weights share the selection bias of ImageNet.
"""


def _measure(run: Path, dataset: PreparedDataset, seed: int) -> dict[str, Any]:
    """Train and evaluate one seed."""
    epochs = train_once(dataset.path, run, recipe="small", seed=seed, **CHANGES).metrics("epoch")
    entry: dict[str, Any] = {
        "seed": seed,
        "training_seconds": sum(record["seconds"] for record in epochs),
        "train_loss": [record["train_loss"] for record in epochs],
        "validation_error": [record["validation_error"] for record in epochs],
    }
    for views in (1, 10):
        result = evaluate(run, dataset, split="val", views=views, precision="auto")
        entry[f"views_{views}"] = {"top1": result.accuracy, "top5": result.top5_accuracy, "log_loss": result.log_loss}
    return entry
