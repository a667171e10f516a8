"""Import of weights that other tools trained, or that `export` wrote, as a run folder."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from alexnet.network.variants import get_variant, list_variants
from alexnet.runs.config import Config
from alexnet.runs.decision import DecisionRule
from alexnet.runs.recipe import IMAGENET, STARTER, Recipe, recipes
from alexnet.runs.run import Run, checksum_of, is_free
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.progress import notify
from alexnet.weights.class_names import read_class_names
from alexnet.weights.foreign import ForeignWeights, require_arrays, require_finite
from alexnet.weights.formats import ReadOptions, WeightFile, find_format, weight_formats
from alexnet.weights.imagenet import NUM_CLASSES, imagenet_classes

HUB = "hf:"
TORCHVISION = "torchvision"
# The name ends in the first digits of the file's SHA-256, as torchvision publishes it.
TORCHVISION_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
STARTER_FILE = Path(__file__).with_name("starter.safetensors")
CONFIG_FILE, WEIGHTS_FILE, ONNX_FILE = "config.json", "model.safetensors", "model.onnx"


def import_weights(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    mean: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    key: str | None = None,
) -> Run:
    """Create a run folder from weights of another tool; `Classifier.load` and `alexnet predict` read it.

    Parameters
    ----------
    source : str or path
        A file of any registered format (`weight_formats`), recognized by its content; a run folder or a folder that
        `export` wrote; ``"torchvision"``, whose weights are downloaded; or ``"hf:owner/name"``, a repository of the
        Hugging Face hub.
    out : str or path
        The run folder to create.
    mean : str or path, optional
        The mean image that belongs to the weights of Caffe or cuda-convnet.
    classes : str or path, optional
        A file of class names in the order of the outputs (`read_class_names`); by default those in the file, and
        ImageNet's for 1000 outputs.
    variant : str, optional
        The variant of a state dict in this package's layout that has no config.json.
    key : str, optional
        Which state dict of a checkpoint to read, such as ``"model_ema"``, where there are several.

    Returns
    -------
    Run
        The new run folder.

    Raises
    ------
    AlexNetError
        If the file is damaged or not an AlexNet, or `out` exists. No code in a file runs; nothing is left after an
        error.
    """
    if not is_free(out):
        raise AlexNetError(f"{out} exists already: choose another folder, or remove it")
    if variant is not None:
        check_choice(variant, list_variants(), "variant")
    name = os.fspath(source)
    network = find_weights(name, Path(mean) if mean else None, variant, key)
    if mean is not None and (network.config is not None or "torchvision" in network.format):
        takers = ", ".join(known.description for known in weight_formats() if known.takes_mean)
        raise UsageError(f"{name} ({network.format}) has its own mean; --mean is for {takers}")
    notes = list(network.notes)
    if classes is not None:
        names, more = read_class_names(Path(classes))
        network = _with_classes(network, names)
        notes += more
    output = get_variant(network.variant).output_layer
    if network.config is None and not any(array.partition(".")[0] == output for array in network.weights):
        raise AlexNetError(
            f"{name} has no last layer and so no classes: train a network that starts from it, "
            f"`alexnet train DATA --init {shlex.quote(name)} --out run`"
        )
    config, image = _config(network, name)
    require_arrays(
        network.weights,
        config.network_variant,
        f"{name} is not a {config.recipe.variant} network with {len(config.classes):,} classes",
        {},
        classes=len(config.classes),
        switches=config.switches,
    )
    require_finite(network.weights, name)
    run = _write(Path(out), config, network.weights, image)
    _copy_rule(Path(name), run)
    for note in notes:
        notify(note)
    notify(
        f"{name} ({network.format}): {config.recipe.variant}, {len(config.classes):,} classes, images of "
        f"{config.size} pixels, crops of {config.crop_size}; {run.path}"
    )
    return run


def _copy_rule(source: Path, run: Run) -> None:
    """Store the decision rule beside exported weights, if it belongs to them, in the new run."""
    rule = DecisionRule.load(source) if source.is_dir() else None
    if rule is not None and rule.weights == checksum_of(run.load()[0].state_dict()):
        rule.save(run.path)


def find_weights(
    name: str, mean: Path | None = None, variant: str | None = None, key: str | None = None
) -> ForeignWeights:
    """Read weights by path or by name.

    Parameters
    ----------
    name : str
        A file or folder; ``"starter"``, which is part of this package; ``"torchvision"`` or ``"imagenet"``, which
        are downloaded once; or ``"hf:owner/name"``. A file or folder with one of these names is given as
        ``"./starter"``.
    mean, variant, key
        See `ReadOptions`.

    Raises
    ------
    AlexNetError
        If the weights can't be downloaded or read.
    """
    options = ReadOptions(mean, variant, key)
    path = Path(name)
    names = (STARTER, TORCHVISION, IMAGENET)
    if name in names and path.exists():  # the recipes name them, whatever the working directory holds
        _say_which(path.absolute())
    elif name not in names and path.exists():
        return read_weights(path, options)
    if name == STARTER:
        return read_weights(STARTER_FILE)
    if name in (TORCHVISION, IMAGENET):
        return read_weights(fetch(TORCHVISION_URL, Path(torch.hub.get_dir()) / "checkpoints"))
    if name.startswith(HUB):
        with tempfile.TemporaryDirectory() as download:
            return read_weights(_from_hub(name.removeprefix(HUB), Path(download)), options)
    return read_weights(path, options)


@cache
def _say_which(path: Path) -> None:
    """Say once that a path is not read, since its name is that of pretrained weights."""
    name = path.name
    notify(f"{name}: the pretrained weights of this name are read; the path in the working directory is ./{name}")


def read_weights(file: Path, options: ReadOptions | None = None) -> ForeignWeights:
    """Read a file of any registered format, recognized by its content, or a folder.

    Raises
    ------
    AlexNetError
        If the file can't be read, or has no registered format.
    """
    options = options or ReadOptions()
    if file.is_dir():
        return read_weights(_file_in_folder(file), options)
    try:
        opened = WeightFile.open(file)
        return find_format(opened).read(file, options)
    except OSError as error:
        raise AlexNetError(f"{file} can't be read: {error.strerror or error}") from None
    except MemoryError:
        raise AlexNetError(f"{file} requires more memory than there is") from None


def _file_in_folder(folder: Path) -> Path:
    """The weights of a run folder or of an export; the last epoch of a folder of cuda-convnet."""
    for name in (WEIGHTS_FILE, ONNX_FILE):
        if (folder / name).is_file():
            return folder / name
    epochs = {file: match for file in folder.iterdir() if (match := re.fullmatch(r"(\d+)\.(\d+)", file.name))}
    if epochs:
        return max(epochs, key=lambda file: tuple(map(int, epochs[file].groups())))
    raise AlexNetError(f"{folder} holds neither {WEIGHTS_FILE} nor {ONNX_FILE} nor checkpoints of cuda-convnet")


def fetch(address: str, folder: Path) -> Path:
    """Download a file once, and check it.

    Parameters
    ----------
    address : str
        Its URL, whose name ends in the first digits of the file's SHA-256.
    folder : Path
        Where it is stored; a file that is there already is not downloaded.

    Raises
    ------
    AlexNetError
        If it can't be downloaded, or has another checksum.
    """
    name = address.rpartition("/")[2]
    digits = name.rpartition("-")[2].partition(".")[0]
    if (folder / name).exists():
        return folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(folder / name), hash_prefix=digits, progress=sys.stderr.isatty())
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such file; another checksum
        raise AlexNetError(f"{address} can't be downloaded: {error}; download it elsewhere and give its path") from None
    return folder / name


def _from_hub(name: str, folder: Path) -> Path:
    """Download a repository's weights and config."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"{HUB}{name} is not the name of a repository: write {HUB}owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise AlexNetError("the hub needs the package huggingface_hub: pip install 'alexnet[hf]'") from None
    try:
        return Path(snapshot_download(name, local_dir=folder, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except Exception as error:  # its own errors, those of HTTP, of the network and of the disk
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise AlexNetError(f"{HUB}{name} can't be downloaded: {reason}") from None


def _config(network: ForeignWeights, source: str) -> tuple[Config, Tensor]:
    """The config.json of an imported network, and its mean image."""
    if network.config is not None:
        return network.config, network.mean
    bias = network.weights.get(f"{get_variant(network.variant).output_layer}.bias")
    count = 0 if bias is None else len(bias)
    classes, descriptions = network.classes, network.descriptions
    if classes is None and count == NUM_CLASSES:
        classes, descriptions = imagenet_classes()
    if classes is None:
        raise AlexNetError(f"{source} has {count:,} classes without names: give a file of them with --classes")
    if count and len(classes) != count:
        named = f"{len(classes):,} classes are named, from {classes[0]!r} to {classes[-1]!r}"
        raise AlexNetError(f"{source} has {count:,} outputs, but {named}")
    size = network.mean.shape[0]
    if network.crop_size > size:
        raise AlexNetError(f"{source} reads crops of {network.crop_size} pixels, larger than its images of {size}")
    changes = {"variant": network.variant, "crop_size": network.crop_size, **network.switches}
    recipe = dataclasses.replace(
        recipes()["paper"].override(changes),
        name="imported",
        purpose=f"Imported weights, from {Path(source).name} ({network.format}).",
        mean="center" if network.mean_of_center else "image",
    )
    config = Config(
        recipe=_without_training(recipe),
        classes=classes,
        size=size,
        crop_size=network.crop_size,
        input_size=network.input_size or network.crop_size,
        scale=network.scale,
        dataset={"imported": Path(source).name, "format": network.format},
        descriptions=descriptions,
    )
    return config, network.mean


def _with_classes(network: ForeignWeights, classes: list[str]) -> ForeignWeights:
    config = network.config and dataclasses.replace(network.config, classes=classes, descriptions=None)
    return dataclasses.replace(network, classes=classes, descriptions=None, config=config)


def _without_training(recipe: Recipe) -> Recipe:
    """The recipe without events: how the weights were trained is unknown, and they are the last ones."""
    return dataclasses.replace(recipe, keep="last", events=(), weights_dtype="float32")


def _write(out: Path, config: Config, weights: dict[str, Tensor], mean: Tensor) -> Run:
    """Create the run folder atomically."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        run = Run.create(temporary, config)
        run.save_weights(config.recipe.keep, weights, mean)
        if out.is_dir():
            shutil.rmtree(out)  # `is_free` found it empty
        temporary.rename(out)
    except OSError as error:
        raise AlexNetError(f"{out} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run.open(out)
