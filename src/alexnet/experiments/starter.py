"""The starter features: the five convolutions, trained on Tiny ImageNet, that the package comes with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.experiments.trials import measured, prepared, trained
from alexnet.report.filters import first_layer_kernels
from alexnet.report.style import png
from alexnet.runs.run import MEAN, Run
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.provenance import provenance, write_result

# What `transfer` measures on was not seen before: nine classes, and the twenty of another selection.
KEPT = (
    *("n01882714", "n02099601", "n02123045", "n02504458", "n03100240", "n04146614", "n04285008", "n07747607"),
    *("n09246464", "n01784675", "n02085620", "n02094433", "n02226429", "n02410509", "n02415577", "n02909870"),
    *("n03733131", "n03763968", "n03814639", "n03838899", "n03980874", "n03983396", "n04074963", "n04251144"),
    *("n04356056", "n04456115", "n04501370", "n04507155", "n07715103"),
)

CHANGES: dict[str, Any] = {
    "init": "he",
    "variant": "convolutions",
    "crop_size": 56,  # of 64, as 224 of 256
    "early_input_size": 67,
    "input_size": 115,
    "early_share": 0.6,
    "batch_size": 256,
    "epochs": 12,
}
"""What is set beside the recipe `small`."""

FILE, CARD = "starter.safetensors", "starter.md"


def reproduce(work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = ()) -> str:
    """Train on Tiny ImageNet (`data`: its folder tiny-imagenet-200) and write the features and their card in `work`,
    the first-layer kernels beside `results`.

    What was trained before, there, is not trained again, and what was stopped goes on. Of several seeds the features
    of the first are written. Returns a line that says what came out.
    """
    if len(data) != 1:
        raise UsageError(
            "name the folder tiny-imagenet-200 with --data (http://cs231n.stanford.edu/tiny-imagenet-200.zip)"
        )
    dataset = prepared(partial(write_source, Path(data[0]), work / "images.csv"), work / "data", size=64)
    runs = [
        measured(work / f"seed-{seed}.json", partial(_measure, work / f"seed-{seed}", dataset, seed)) for seed in seeds
    ]
    first = Run.open(work / f"seed-{seeds[0]}")
    report = {
        "what": "the five convolutions of the paper's network, trained on Tiny ImageNet without the classes of `kept`; "
        "accuracies on its validation images of the other classes",
        "kept": list(KEPT),
        "classes": len(dataset.classes),
        "images": dataset.counts,
        "changes": CHANGES,
        "recipe": first.config.recipe.to_dict(),
        "runs": runs,
        **provenance(command),
    }
    write_atomic(work / FILE, features_of(first))
    write_atomic(work / CARD, card(report).encode())
    write_result(results, report)
    write_atomic(results.with_name("starter-kernels.png"), png(first_layer_kernels(first.load()[0])))
    return f"{runs[0]['views_10']['top1']:.1%} of {len(dataset.split('val')):,} images right; {work / FILE}"


def write_source(folder: Path, path: Path) -> Path:
    """Write the CSV that `prepare` reads: training and validation images of the classes that are not kept back."""
    try:
        names = (folder / "wnids.txt").read_text().split()
        truth = [line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
    except OSError as error:
        raise AlexNetError(f"{folder} is no folder of Tiny ImageNet: {error.filename} is missing") from None
    known = sorted(set(names).difference(KEPT))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    for name in known:
        images = sorted((folder / "train" / name / "images").glob("*.JPEG"))
        writer.writerows([image.resolve(), name, "train"] for image in images)
    images_of_val = (folder / "val" / "images").resolve()
    writer.writerows([images_of_val / file, name, "val"] for file, name, *_ in truth if name in known)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue().encode())
    return path


def features_of(run: Run) -> bytes:
    """The convolutions of a run and their batch normalization as safetensors, half precision, with its config."""
    network, preprocess = run.load()
    tensors = {name: array for name, array in network.state_dict().items() if not name.startswith("logits")}
    halves = {name: array.half() if array.is_floating_point() else array for name, array in tensors.items()}
    if not all(bool(array.isfinite().all()) for array in halves.values()):
        raise AlexNetError(f"{run.path}: some weights are too large for half precision")
    contiguous = {name: array.contiguous() for name, array in {**halves, MEAN: preprocess.mean}.items()}
    # Where the images lay is nobody's business.
    known = {"name": "Tiny ImageNet", "counts": run.config.dataset["counts"]}
    described = json.dumps({**run.config.to_dict(), "dataset": known}, ensure_ascii=False)
    return save(contiguous, {"alexnet.config": described, "format": "pt"})


def card(report: dict[str, Any]) -> str:
    """The model card of the starter, from what `reproduce` wrote."""
    first, images = report["runs"][0], report["images"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return f"""# The starter features

The five convolutions of AlexNet as the paper has them (two towers, 2.33 million weights), with batch normalization, in
half precision: what `alexnet train` starts from when the images are few. The classifier above them is not part of it.

## Data

Tiny ImageNet: images of 64×64 pixels from ImageNet, 500 a class for training and 50 for validation. Left out, for
measuring what the features are good for: {", ".join(report["kept"])}. The other {report["classes"]} classes:
{images["train"]:,} training and {images["val"]:,} validation images.

## Training

`{report["command"]}` on {report["date"]}; {report["machine"]}; {versions}.
Seed {first["seed"]}, {report["recipe"]["epochs"]} epochs, {first["training_seconds"] / 3600:.1f} hours: the recipe
`small` with {", ".join(f"{name} {value}" for name, value in report["changes"].items())}. Crops of 56×56 are scaled
to {report["changes"]["early_input_size"]} pixels for the first {report["changes"]["early_share"]:.0%} of the run and to
{report["changes"]["input_size"]} for the rest, which a processor can pay for; the kernels are those of any size.

## Accuracy

Of the validation images {first["views_1"]["top1"]:.2%} right in the center view and {first["views_10"]["top1"]:.2%}
in ten views; {first["views_10"]["top5"]:.2%} among the first five. What the features are worth on other images:
`alexnet reproduce transfer`.

## License

The weights are under the license of this package (MIT). The images are ImageNet's, which its authors give for
research and teaching that is not commercial, and their rights are the photographers'; whether weights inherit anything
from them is not settled. Where that matters, train without them: `alexnet train --init he`.

## Limits

Learned from small images of things and animals, centered by people: fine texture at the full resolution of a camera
was never seen. One seed. What ImageNet's images over- and under-represent, these features do too.
"""


def _measure(run: Path, dataset: PreparedDataset, seed: int) -> dict[str, Any]:
    """What comes out of one seed."""
    epochs = trained(dataset.path, run, recipe="small", seed=seed, **CHANGES).metrics("epoch")
    entry: dict[str, Any] = {
        "seed": seed,
        "training_seconds": sum(record["seconds"] for record in epochs),
        "train_loss": [record["train_loss"] for record in epochs],
        "validation_error": [record["validation_error"] for record in epochs],
    }
    for views in (1, 10):
        result = evaluate(run, dataset, split="val", views=views, precision="auto")
        entry[f"views_{views}"] = {"top1": result.top1, "top5": result.top5, "log_loss": result.log_loss}
    return entry
