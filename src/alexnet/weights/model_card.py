"""The model card of exported weights: input, example, data, recipe, accuracy and limits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from alexnet import __version__
from alexnet.network.variants import SWITCHES
from alexnet.runs.config import Config
from alexnet.runs.decision import DecisionRule, describe_decision, describe_guarantees
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError
from alexnet.weights.formats import EXPORT_FORMATS, ONNX_BASED


@dataclass(frozen=True)
class QuantizationLoss:
    """The loss of accuracy by 8-bit weights.

    Parameters
    ----------
    data, split : str
        The prepared dataset and the split of the measurement.
    count : int
        Number of images.
    float32, int8 : float
        Accuracy with float32 and with 8-bit weights, 0 to 1, of the center crop.
    agreement : float
        Share of images with the same answer, 0 to 1.
    """

    data: str
    split: str
    count: int
    float32: float
    int8: float
    agreement: float

    def text(self) -> str:
        """Return one line for people."""
        return (
            f"8-bit weights: accuracy {self.int8:.2%} instead of {self.float32:.2%} (center crop, {self.count:,} "
            f"images of {self.split} in {self.data}); {self.agreement:.2%} of the answers are the same"
        )


def model_card(
    run: Run,
    to: str,
    preprocessing: str,
    difference: float | None,
    int8: bool,
    loss: QuantizationLoss | None,
    rule: DecisionRule | None = None,
) -> str:
    """Return the model card of an exported run, Markdown with the front matter that the Hugging Face hub reads.

    Parameters
    ----------
    run : Run
        The run.
    to, preprocessing : str
        As in `export`.
    difference : float or None
        Largest difference of a probability between the export and the run; None where it was not compared.
    int8 : bool
        Whether the weights have 8 bits.
    loss : QuantizationLoss or None
        The loss of accuracy by that, where it was measured.
    rule : DecisionRule or None
        The decision rule of the run.
    """
    config = run.config
    recipe = config.recipe
    head = [
        *("---", "library_name: alexnet", "pipeline_tag: image-classification", "tags:", "- alexnet"),
        *("# license: choose one that the license of the training images allows", "---"),
    ]
    labels = config.labels
    listed = "; ".join(labels[:20]) + (f"; … ({len(labels):,} in classes.json)" if len(labels) > 20 else "")
    recipe_text = json.dumps(_known_values(recipe.to_dict()), ensure_ascii=False)
    parts = [
        "\n".join(head),
        f"# AlexNet, {recipe.variant}\n\n{config.network_variant.description}",
        f"Written by alexnet {__version__}. {len(labels):,} classes: {listed}.",
        f"## Use\n\n{_input(config, to, preprocessing)}\n\n{_example(config, to, preprocessing)}",
        *([] if rule is None else [f"## Decisions\n\n{_decisions(rule, to, int8)}"]),
        f"## Data\n\n{_data(config)}",
        f"## Recipe\n\n{recipe.purpose}\n\n```json\n{recipe_text}\n```",
        f"## Accuracy\n\n{_accuracy(run)}{_comparison(EXPORT_FORMATS[to].file, difference, loss)}",
        "## License\n\nNot chosen: choose one that the license of the training images allows.",
        f"## Limits\n\n{_limits(config, int8, rule)}",
    ]
    return "\n\n".join(parts) + "\n"


def _input(config: Config, to: str, preprocessing: str) -> str:
    """How an image file becomes the network's input."""
    crop = (
        f"the center crop of {config.crop_size}×{config.crop_size} pixels minus the mean image, times "
        f"{config.scale:.6g}"
    )
    if config.input_size != config.crop_size:
        crop += f", resized (bilinear, antialiased) to {config.input_size}×{config.input_size}"
    stored = (
        f"An image's shorter side is scaled to {config.size} pixels and its central square cut out, RGB, 0 to 255. "
        "Classes are in the order of classes.json."
    )
    if not EXPORT_FORMATS[to].is_program:
        return f"{stored} The network reads {crop}."
    if preprocessing == "inside":
        return f"{stored} The file reads that, and computes {crop}. Its output is the logits."
    return (
        f"{stored} The file reads {crop}; the mean image is mean.npy, ({config.size}, {config.size}, 3). "
        "Its output is the logits."
    )


def _example(config: Config, to: str, preprocessing: str) -> str:
    """Complete code from an image file to its class."""
    if not EXPORT_FORMATS[to].is_program:
        source = "hf:OWNER/NAME" if to == "hub" else EXPORT_FORMATS[to].file
        return f"```sh\nalexnet import {source} --out run\nalexnet predict run photograph.jpg\n```"
    onnx, beside = to == "onnx", preprocessing == "beside"
    torch = to == "torch-export" or (beside and config.input_size != config.crop_size)
    lines = [
        "import json",
        "",
        "import numpy as np",
        *(["import onnxruntime"] if onnx else ["import openvino"] if to == "openvino" else []),
        *(["import torch"] if torch else []),
        "from PIL import Image, ImageOps",
        "",
        f'image = ImageOps.fit(Image.open("photograph.jpg").convert("RGB"), ({config.size}, {config.size}))',
        "images = np.array(image)[None]",
    ]
    if beside:
        first = (config.size - config.crop_size) // 2
        center = f"{first}:{first + config.crop_size}"
        lines += [
            f'crops = (images - np.load("mean.npy"))[:, {center}, {center}] * {config.scale!r}',
            "images = crops.transpose(0, 3, 1, 2).astype(np.float32)",
        ]
        if config.input_size != config.crop_size:
            lines += [
                "images = torch.nn.functional.interpolate(",
                f'    torch.from_numpy(images), size={config.input_size}, mode="bilinear", antialias=True',
                ").numpy()",
            ]
    if onnx:
        lines += [
            'session = onnxruntime.InferenceSession("model.onnx")',
            "logits = session.run(None, {session.get_inputs()[0].name: images})[0][0]",
        ]
    elif to == "openvino":
        lines += [
            'exact = {"INFERENCE_PRECISION_HINT": "f32"}  # without it some CPUs compute in 16 bits',
            'logits = openvino.compile_model("model.xml", "CPU", exact)(images)["logits"][0]',
        ]
    else:
        lines += [
            'network = torch.export.load("model.pt2").module()',
            "logits = network(torch.from_numpy(images)).detach().numpy()[0]",
        ]
    lines += [
        "probabilities = np.exp(logits - logits.max())",
        "probabilities /= probabilities.sum()",
        'with open("classes.json", encoding="utf-8") as file:',
        "    classes = json.load(file)",
        "print(classes[probabilities.argmax()], probabilities.max())",
    ]
    return "\n".join(("```python", *lines, "```"))


def _data(config: Config) -> str:
    known: dict[str, Any] = config.dataset
    if "imported" in known:
        return f"Imported weights, from `{known['imported']}` ({known.get('format')}): see their documentation."
    counts = known.get("counts") or {}
    images = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
    return f"A prepared dataset with {images or 'an unknown number of'} images, of {config.size}×{config.size}."


def _known_values(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe that are set; of imported weights those of the network and not of the training."""
    network = ("variant", *SWITCHES, "mean")
    known = network if values["name"] == "imported" else tuple(values)
    return {name: values[name] for name in known if values[name] is not None and name != "purpose"}


def _accuracy(run: Run) -> str:
    """The accuracy in metrics.jsonl, of the epoch whose weights were kept."""
    try:
        epochs = run.metrics("epoch")
    except AlexNetError:
        epochs = []
    if not epochs:
        return "Not measured in this run."
    measured = [record for record in epochs if record.get("validation_error") is not None]
    if not measured:
        last = epochs[-1]
        return f"{1 - last['train_error']:.2%} on the training images (epoch {last['epoch']}); not measured on others."
    last_kept = run.config.recipe.keep == "last"
    record = measured[-1] if last_kept else min(measured, key=lambda one: one["validation_error"])
    return (
        f"{1 - record['validation_error']:.2%} on the validation images (epoch {record['epoch']}, log loss "
        f"{record['validation_loss']:.4f}). `alexnet evaluate` measures it on others."
    )


def _comparison(file: str, difference: float | None, loss: QuantizationLoss | None) -> str:
    text = ""
    if difference is not None:
        size = f"differ by at most {difference:.1g} from" if difference else "are bitwise identical to"
        text = f"\n\n{file} was run after writing: its probabilities {size} those of the run."
    return text + (f"\n\n{loss.text()}." if loss else "")


def rule_notes(rule: DecisionRule | None, to: str, int8: bool) -> list[str]:
    """Return what users of an export must know of its decision rule, a line each."""
    if rule is None:
        return []
    notes = ["the decision rule of the run is in decision.json; the output of the model does not obey it by itself"]
    if rule.distance is not None:
        notes.append(
            "unknown: the distance is computed from the output features and decision.safetensors"
            if to in ONNX_BASED
            else "unknown: decision.safetensors has the distance, which needs the input of the output layer"
        )
    if rule.views > 1:
        notes.append(f"the rule holds for the mean of {rule.views} views; for one, run `alexnet decide` with --views 1")
    if int8:
        notes.append("the rule was found with 32-bit weights: its guarantees do not hold for those of 8 bits")
    return notes


def _decisions(rule: DecisionRule, to: str, int8: bool) -> str:
    lines = [*describe_decision(rule), *(f"{note[0].upper()}{note[1:]}." for note in rule_notes(rule, to, int8))]
    lines += [f"{line} It is for images like those on which the rule was found." for line in describe_guarantees(rule)]
    return "\n".join(f"- {line}" for line in lines)


def _limits(config: Config, int8: bool, rule: DecisionRule | None) -> str:
    calibrated = "not calibrated" if rule is None else "calibrated only with the temperature of the decision rule"
    lines = [
        f"- It knows {len(config.classes):,} classes and assigns one of them to every image, whatever it shows.",
        f"- Its probabilities are {calibrated}. Images of another kind than the training images (other cameras, "
        "illumination, angles) are classified with lower accuracy and the same confidence.",
        "- Accuracy is that of one view and one run; another seed gives another value.",
    ]
    if int8:
        lines.append("- Weights are rounded to 8 bits; computation is in float32.")
    return "\n".join(lines)
