"""Weights that others trained → a run folder: what a file is, told by its first bytes, and what travels with it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet.network.model import variants
from alexnet.runs.recipe import IMAGENET, STARTER, Recipe, recipes
from alexnet.runs.run import MEAN, Config, Run, is_free
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.weights.caffe import caffe_mean, read_caffe
from alexnet.weights.convnet import read_convnet
from alexnet.weights.foreign import (
    SIZE,
    Foreign,
    config_of,
    require_arrays,
    require_finite,
)
from alexnet.weights.imagenet import CLASSES, imagenet_classes
from alexnet.weights.torchvision import LAYERS, read_torchvision, torchvision_network
from alexnet.weights.toronto import read_toronto

HUB = "hf:"
TORCHVISION = "torchvision"
# The name ends in the first digits of the file's SHA-256, as torchvision publishes it.
TORCHVISION_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
STARTER_FILE = Path(__file__).with_name("starter.safetensors")
CONFIG_FILE, WEIGHTS_FILE, ONNX_FILE = "config.json", "model.safetensors", "model.onnx"
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # how torch.save began before it wrote zip archives
_EXPORTED = ("archive_format", "serialized_exported_program.json")  # of torch.export, now and before torch 2.7
_FORMATS = "torchvision's .pth, .caffemodel, bvlc_alexnet.npy, .onnx, cuda-convnet's checkpoints and .safetensors"


def import_weights(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    mean: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | None = None,
    variant: str | None = None,
) -> Run:
    """Make a run folder of weights that others trained; `Classifier.load` and `alexnet predict` take it at once.

    `source`: a file of torchvision, Caffe, Toronto, ONNX, cuda-convnet or of our own (.safetensors, a run folder, what
    `export` wrote), whatever its name; "torchvision", whose weights are then fetched; or "hf:owner/name", a repository
    of the Hugging Face hub. `mean`: the mean image
    that belongs to Caffe's or cuda-convnet's weights, where there is one. `classes`: a text file with a class a line,
    in the order of the outputs; by default what the file says, and ImageNet's for a thousand classes.
    `variant`: what network a .safetensors is that does not say.

    No code in a file runs. Raises `AlexNetError` when the file is damaged or no AlexNet, and then leaves nothing.
    """
    if not is_free(out):
        raise AlexNetError(f"{out} is there already: choose another folder, or remove it")
    if variant is not None:
        check_choice(variant, variants(), "variant")
    name = os.fspath(source)
    found = find_weights(name, Path(mean) if mean else None, variant)
    if mean is not None and (found.config is not None or "torchvision" in found.format):
        raise UsageError(f"{name} ({found.format}) has its own mean: --mean is for Caffe's and cuda-convnet's weights")
    if classes is not None:
        found = _renamed(found, _class_names(Path(classes)))
    if found.config is None and not any(layer.startswith("logits.") for layer in found.weights):
        raise AlexNetError(f"{name} has no last layer, so it knows no classes: start from it, train DATA --init {name}")
    config, image = _config(found, name)
    require_arrays(
        found.weights,
        config.recipe.variant,
        f"{name} is no {config.recipe.variant} network for {len(config.classes):,} classes",
        {},
        classes=len(config.classes),
        switches=config.switches,
    )
    require_finite(found.weights, name)
    run = _write(Path(out), config, found.weights, image)
    print(
        f"{name} ({found.format}): {config.recipe.variant}, {len(config.classes):,} classes, images of "
        f"{config.size} pixels, crops of {config.crop_size}; {run.path}",
        file=sys.stderr,
    )
    return run


def find_weights(name: str, mean: Path | None = None, variant: str | None = None) -> Foreign:
    """What `import_weights` reads: a file or folder; or a name, whose weights are here or are fetched.

    Raises `AlexNetError` when they can't be fetched or read.
    """
    path = Path(name)
    if path.exists():
        return read_foreign(path, mean, variant)
    if name == STARTER:
        return read_foreign(STARTER_FILE)
    if name in (TORCHVISION, IMAGENET):
        return read_foreign(fetch(TORCHVISION_URL, Path(torch.hub.get_dir()) / "checkpoints"))
    if name.startswith(HUB):
        with tempfile.TemporaryDirectory() as download:
            return read_foreign(_from_hub(name.removeprefix(HUB), Path(download)), mean, variant)
    return read_foreign(path, mean, variant)


def read_foreign(file: Path, mean: Path | None = None, variant: str | None = None) -> Foreign:
    """A file of any format that is known here, told by its content. Raises `AlexNetError`."""
    if file.is_dir():
        return _read_folder(file, mean)
    try:
        with file.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise AlexNetError(f"{file} can't be read: {error.strerror or error}") from None
    try:
        return _read_file(file, start, mean, variant)
    except OSError as error:
        raise AlexNetError(f"{file} can't be read: {error.strerror or error}") from None
    except MemoryError:
        raise AlexNetError(f"{file} asks for more memory than there is") from None


def _read_file(file: Path, start: bytes, mean: Path | None, variant: str | None) -> Foreign:  # noqa: PLR0911
    if start.startswith(b"\x93NUMPY"):
        return read_toronto(file, mean)
    if start.startswith(b"PK"):
        members = _members(file)
        if any(name.endswith(_EXPORTED) for name in members):
            raise AlexNetError(f"{file} is a program of torch.export, to run and not to read: it is none of {_FORMATS}")
        is_torch = any(name.endswith("data.pkl") for name in members)
        return read_torchvision(file) if is_torch else read_convnet(file, mean)
    if start.startswith(_OLD_TORCH):
        return read_torchvision(file)
    if start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(d", b"(l", b"c")):
        return read_convnet(file, mean)
    if len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < 1 << 27:
        return _read_safetensors(file, mean, variant)
    if start.startswith(b"\x08"):
        from alexnet.weights.onnx import from_onnx

        return from_onnx(file.read_bytes(), file, mean)
    # Caffe's messages begin with the network's name, its input or its first layer.
    if start[:1] in (b"\x0a", b"\x12", b"\x1a") or start.startswith(b"\xa2\x06"):
        return read_caffe(file, mean)
    what = "is empty" if not start else f"begins with {start[:8]!r}"
    raise AlexNetError(f"{file} {what}: it is none of {_FORMATS}")


def _members(file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError) as error:
        raise AlexNetError(f"{file} is a truncated or damaged archive: {error}") from None


def _read_folder(folder: Path, mean: Path | None) -> Foreign:
    """A run folder, or what `export` wrote; a folder of cuda-convnet's, of which the last epoch counts."""
    if (folder / WEIGHTS_FILE).exists():
        return _read_safetensors(folder / WEIGHTS_FILE, mean, None)
    if (folder / ONNX_FILE).exists():
        return read_foreign(folder / ONNX_FILE, mean)
    epochs = {file: match for file in folder.iterdir() if (match := re.fullmatch(r"(\d+)\.(\d+)", file.name))}
    if epochs:
        return read_convnet(max(epochs, key=lambda file: tuple(map(int, epochs[file].groups()))), mean)
    raise AlexNetError(f"{folder} holds neither {WEIGHTS_FILE} nor {ONNX_FILE} nor cuda-convnet's checkpoints")


def _read_safetensors(file: Path, mean: Path | None, variant: str | None) -> Foreign:
    """Our own layout, or torchvision's names; which network, the file says, or config.json beside it, or `variant`."""
    try:
        with safe_open(file, framework="pt") as stored:
            described = (stored.metadata() or {}).get("alexnet.config")
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError) as error:
        raise AlexNetError(f"{file} can't be read: {error}") from None
    if any(name in weights for name in (f"{layer}.weight" for layer in LAYERS)):
        return torchvision_network(weights, str(file))
    image = weights.pop(MEAN, None)
    beside = file.with_name(CONFIG_FILE)
    config = None
    if variant is None and (described or beside.exists()):
        where = f"{file}: its description" if described else str(beside)
        config = config_of(described or beside.read_bytes(), where)
        variant = config.recipe.variant
    if variant is None:
        raise AlexNetError(
            f"{file} does not say which network it is, and has no {CONFIG_FILE} beside it: name it with --variant, "
            f"one of {', '.join(variants())}"
        )
    if image is None:
        image = caffe_mean(mean)
    size = config.size if config else SIZE
    if tuple(image.shape) != (size, size, 3) or image.dtype != torch.float32:
        raise AlexNetError(f"{file}: {MEAN} is {tuple(image.shape)} {image.dtype}, not ({size}, {size}, 3) float32")
    weights = {name: array.float() if array.is_floating_point() else array for name, array in weights.items()}
    found = Foreign("our layout", variant, weights, image, variants()[variant].input_size)
    return found.described_by(config) if config else found


def fetch(address: str, folder: Path) -> Path:
    """Download a file whose name ends in the first digits of its SHA-256, which are checked; once."""
    name = address.rpartition("/")[2]
    digits = name.rpartition("-")[2].partition(".")[0]
    if (folder / name).exists():
        return folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(folder / name), hash_prefix=digits, progress=sys.stderr.isatty())
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such file; another checksum
        raise AlexNetError(f"{address} can't be fetched: {error}; bring the file here and give its path") from None
    return folder / name


def _from_hub(name: str, folder: Path) -> Path:
    """Download a repository's weights and config."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"{HUB}{name} is no name of the hub: write {HUB}owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise AlexNetError("the hub needs the package huggingface_hub: pip install 'alexnet[hf]'") from None
    try:
        return Path(snapshot_download(name, local_dir=folder, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except Exception as error:  # its own errors, those of HTTP, of the network and of the disk
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise AlexNetError(f"{HUB}{name} can't be fetched: {reason}") from None


def _config(found: Foreign, source: str) -> tuple[Config, Tensor]:
    """What config.json says of an imported network, and its mean image."""
    if found.config is not None:
        return found.config, found.mean
    count = len(found.weights["logits.bias"]) if "logits.bias" in found.weights else 0
    classes, descriptions = found.classes, found.descriptions
    if classes is None and count == CLASSES:
        classes, descriptions = imagenet_classes()
    if classes is None:
        raise AlexNetError(f"{source} has {count:,} classes without names: give a text file of them with --classes")
    if count and len(classes) != count:
        raise AlexNetError(f"{source} has {count:,} classes, {len(classes):,} are named")
    if found.crop_size > found.mean.shape[0]:
        raise AlexNetError(f"{source} reads crops of {found.crop_size} pixels, more than images of {SIZE} have")
    recipe = recipes()["paper"].override({"variant": found.variant, "crop_size": found.crop_size, **found.switches})
    recipe = dataclasses.replace(
        recipe,
        name="imported",
        purpose=f"Weights that others trained, from {Path(source).name} ({found.format}).",
        mean="center" if found.mean_of_center else "image",
    )
    config = Config(
        recipe=_without_training(recipe),
        classes=classes,
        size=found.mean.shape[0],
        crop_size=found.crop_size,
        input_size=found.input_size or found.crop_size,
        scale=found.scale,
        dataset={"imported": Path(source).name, "format": found.format},
        descriptions=descriptions,
    )
    return config, found.mean


def _renamed(found: Foreign, classes: list[str]) -> Foreign:
    config = found.config and dataclasses.replace(found.config, classes=classes, descriptions=None)
    return dataclasses.replace(found, classes=classes, descriptions=None, config=config)


def _without_training(recipe: Recipe) -> Recipe:
    """We do not know how it was trained: the weights are the last, and no event of ours happened."""
    return dataclasses.replace(recipe, keep="last", events=())


def _class_names(file: Path) -> list[str]:
    """One class a line; a JSON list is as good."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AlexNetError(f"{file} can't be read: {error}") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except ValueError as error:
            raise AlexNetError(f"{file} is no JSON list of classes: {error}") from None
    if len({str(name) for name in names}) != len(names) or not all(isinstance(name, str) for name in names):
        raise AlexNetError(f"{file} does not name each class once")
    return names


def _write(out: Path, config: Config, weights: dict[str, Tensor], mean: Tensor) -> Run:
    """The run folder, made beside and renamed: it is there whole or not at all."""
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        run = Run.create(beside, config)
        run.save_weights(config.recipe.keep, weights, mean)
        if out.is_dir():
            shutil.rmtree(out)  # `is_free` found nothing in it
        beside.rename(out)
    except OSError as error:
        raise AlexNetError(f"{out} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Run.open(out)
