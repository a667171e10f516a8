"""The model card beside exported weights: what they are, what they read, how well they do, and what is not known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from alexnet import __version__
from alexnet.network.variants import SWITCHES
from alexnet.runs.run import Config, Run
from alexnet.runtime.errors import AlexNetError

_USE = {
    "onnx": """```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {{session.get_inputs()[0].name: {example}}})[0]
```""",
    "torch-export": """```python
import torch
logits = torch.export.load("model.pt2").module()({example})
```""",
    "safetensors": """```sh
alexnet import model.safetensors --out run && alexnet predict run photographs/
```""",
    "hub": """```sh
alexnet import hf:OWNER/NAME --out run && alexnet predict run photographs/
```""",
}


@dataclass(frozen=True)
class Precision:
    """What 8-bit weights cost: shares of right answers on `count` images, and of answers that stayed the same."""

    data: str
    split: str
    count: int
    float32: float
    int8: float
    same: float

    def words(self) -> str:
        """One line for people."""
        return (
            f"8-bit weights: {self.int8:.2%} right instead of {self.float32:.2%}, center view, on the {self.count:,} "
            f"images of {self.split} in {self.data}; {self.same:.2%} of the answers are the same"
        )


def model_card(
    run: Run, to: str, file: str, preprocessing: str, difference: float | None, int8: bool, cost: Precision | None
) -> str:
    """The card of an exported run in Markdown, with the head that the Hugging Face hub reads.

    `difference`: the largest one of a probability between the export and the run, None where it was not tried. `int8`:
    whether its weights have 8 bits, and `cost` what that costs where it was measured.
    """
    config = run.config
    recipe = config.recipe
    head = [
        *("---", "library_name: alexnet", "pipeline_tag: image-classification", "tags:", "- alexnet"),
        *("# license: yours to choose, after that of the images it was trained on", "---"),
    ]
    labels = config.labels
    listed = "; ".join(labels[:20]) + (f"; … ({len(labels):,} in classes.json)" if len(labels) > 20 else "")
    parts = [
        "\n".join(head),
        f"# AlexNet, {recipe.variant}\n\n{config.network_variant.description}",
        f"Written by alexnet {__version__}. {len(labels):,} classes: {listed}.",
        f"## Use\n\n{_reads(config, to, preprocessing)}\n\n{_use(config, to, preprocessing)}",
        f"## Data\n\n{_data(config)}",
        f"## Recipe\n\n{recipe.purpose}\n\n```json\n{json.dumps(_recipe(recipe.to_dict()), ensure_ascii=False)}\n```",
        f"## Accuracy\n\n{_accuracy(run)}{_tried(file, difference, cost)}",
        "## License\n\nNot chosen: that is for the one who trained it, within the license of the images.",
        f"## Limits\n\n{_limits(config, int8)}",
    ]
    return "\n\n".join(parts) + "\n"


def _reads(config: Config, to: str, preprocessing: str) -> str:
    crop = (
        f"the central {config.crop_size}×{config.crop_size} pixels of it, less the mean image, times {config.scale:.6g}"
    )
    if config.input_size != config.crop_size:
        crop += f", resized (bilinear, antialiased) to {config.input_size}×{config.input_size}"
    stored = f"An image's shorter side is scaled to {config.size} pixels and the middle square taken, RGB, 0 to 255."
    if to in ("safetensors", "hub") or preprocessing == "inside":
        inside = " The file does the rest itself:" if to in ("onnx", "torch-export") else " Then"
        return f"{stored}{inside} {crop}."
    return f"{stored} Then, before the file: {crop}; the mean image is mean.npy, ({config.size}, {config.size}, 3)."


def _use(config: Config, to: str, preprocessing: str) -> str:
    shape, kind = f"(1, {config.size}, {config.size}, 3)", "uint8"
    if preprocessing == "beside":
        shape, kind = f"(1, 3, {config.input_size}, {config.input_size})", "float32"
    package = "np" if to == "onnx" else "torch"
    return _USE[to].format(example=f"{package}.zeros({shape}, dtype={package}.{kind})")


def _data(config: Config) -> str:
    known: dict[str, Any] = config.dataset
    if "imported" in known:
        return f"Weights that others trained, from `{known['imported']}` ({known.get('format')}); see there."
    counts = known.get("counts") or {}
    images = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
    return f"A prepared dataset with {images or 'an unknown number of'} images, of {config.size}×{config.size}."


def _recipe(values: dict[str, Any]) -> dict[str, Any]:
    """What is known: of weights that others trained, the network and not the training."""
    network = ("variant", *SWITCHES, "mean")
    known = network if values["name"] == "imported" else tuple(values)
    return {name: values[name] for name in known if values[name] is not None and name != "purpose"}


def _accuracy(run: Run) -> str:
    """From metrics.jsonl, of the epoch whose weights were kept."""
    try:
        epochs = run.metrics("epoch")
    except AlexNetError:
        epochs = []
    if not epochs:
        return "Not measured in this run."
    measured = [record for record in epochs if record.get("validation_error") is not None]
    if not measured:
        last = epochs[-1]
        return f"On the training images of epoch {last['epoch']}: {1 - last['train_error']:.2%} right. No others."
    last_kept = run.config.recipe.keep == "last"
    record = measured[-1] if last_kept else min(measured, key=lambda one: one["validation_error"])
    return (
        f"{1 - record['validation_error']:.2%} of the validation images right (epoch {record['epoch']}, "
        f"log-loss {record['validation_loss']:.4f}). `alexnet evaluate` measures it on others."
    )


def _tried(file: str, difference: float | None, cost: Precision | None) -> str:
    words = ""
    if difference is not None:
        size = f"by no more than {difference:.1g}" if difference else "in nothing"
        words = f"\n\n{file} was run after writing: its probabilities differ {size} from those of the run it came from."
    return words + (f"\n\n{cost.words()}." if cost else "")


def _limits(config: Config, int8: bool) -> str:
    lines = [
        f"- It knows {len(config.classes):,} classes and answers with one of them whatever it is shown.",
        "- Its probabilities are those of a softmax and not calibrated; images of another kind than the training's "
        "(other cameras, light, angle) are answered worse, and as confidently.",
        "- The accuracy above is of one view and one run; another seed gives another figure.",
    ]
    if int8:
        lines.append("- Weights are rounded to 8 bits, arithmetic is float32.")
    return "\n".join(lines)
