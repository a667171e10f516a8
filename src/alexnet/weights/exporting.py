"""A run → weights for other tools: ONNX, safetensors, torch.export, a folder for the Hugging Face hub; and its card."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from alexnet.data.augmentation import Preprocessing, resize_batch
from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loading import evaluation_batches
from alexnet.network.model import AlexNet
from alexnet.runs.run import MEAN, Config, Run
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_atomic
from alexnet.weights.model_card import Precision, model_card

FORMATS = ("onnx", "safetensors", "torch-export", "hub")
PREPROCESSING = ("inside", "beside")
FILES = {
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
    "torch-export": "model.pt2",
    "hub": "model.safetensors",
}
TOLERANCE = 1e-4
"""How far a probability may be from ours before an export is called wrong."""
_CHECKED = 4  # images


def export(
    run: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str] | None = None,
    *,
    preprocessing: str = "inside",
    int8: bool = False,
    data: str | os.PathLike[str] | None = None,
    repo: str | None = None,
) -> Path:
    """Write a run's weights for other tools into a new folder, with a model card (README.md); returns the folder.

    `to`: "onnx", "safetensors" (our layout), "torch-export" (a `.pt2` of `torch.export`), or "hub" (what the Hugging
    Face hub shows and `import` reads). `out`: by default RUN-FORMAT beside the run. `preprocessing` for "onnx" and
    "torch-export": "inside" they read stored images (N, size, size, 3) uint8 RGB; "beside" what the network reads,
    (N, 3, side, side) float32, and mean.npy and config.json say how to get there. Both give logits.
    `int8`, for "onnx": whole numbers of 8 bits as weights, a quarter of the size; what that costs is measured on
    `data`, a prepared dataset, by default the one of the training where it is still there.
    `repo`, for "hub": upload to this repository, "owner/name".

    What was written is run again and compared with the run. Raises `AlexNetError` when it differs, and for a folder
    that is there already; `UsageError` for words that make no sense. Nothing is left after an error.
    """
    _check_words(to, preprocessing, int8, repo)
    opened = Run.open(run)
    named = opened.path if opened.path.name else opened.path.resolve()  # "." has no name of its own
    target = Path(out) if out is not None else named.with_name(f"{named.resolve().name}-{to}")
    if os.path.lexists(target):
        raise AlexNetError(f"{target} is there already: choose another folder with --out, or remove it")
    network, preprocess = opened.load("cpu")
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir(parents=True)
        images = _images(opened.config)
        _write_config(beside, opened.config)
        file = beside / FILES[to]
        inside = preprocessing == "inside"
        if to == "onnx":
            _write_onnx(file, network, preprocess, opened.config, inside, int8)
        elif to == "torch-export":
            write_atomic(file, _torch_export(network, preprocess, inside))
        else:
            write_atomic(file, _safetensors(network, preprocess, opened.config))
        if to in ("onnx", "torch-export") and not inside:
            array = io.BytesIO()
            np.save(array, preprocess.mean.numpy())
            write_atomic(beside / "mean.npy", array.getvalue())
        difference = _difference(to, file, network, preprocess, inside, images)
        if difference is not None and not int8 and difference > TOLERANCE:
            raise AlexNetError(f"not written: {to} gives probabilities that differ by {difference:.2g} from the run's")
        cost = _cost_of_int8(file, network, preprocess, opened.config, inside, data) if int8 else None
        card = model_card(opened, to, FILES[to], preprocessing, difference, int8, cost)
        write_atomic(beside / "README.md", card.encode())
        beside.rename(target)
    except OSError as error:
        raise AlexNetError(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _say(target, to, difference, cost)
    if int8 and cost is None:
        print("what 8 bits cost was not measured: name prepared images with --data", file=sys.stderr)
    if repo is not None:
        upload(target, repo)
    return target


def upload(folder: Path, repo: str) -> None:
    """Put an exported folder on the Hugging Face hub, into `repo`, which is made where it is not there yet."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise AlexNetError("the hub needs the package huggingface_hub: pip install 'alexnet[hf]'") from None
    try:
        api = HfApi()
        api.create_repo(repo, exist_ok=True)
        address = api.upload_folder(repo_id=repo, folder_path=folder)
    except Exception as error:  # its own errors, those of HTTP, of the network and of a missing log-in
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise AlexNetError(f"{folder} is written, but {repo} did not take it: {reason}") from None
    print(f"uploaded to {address}", file=sys.stderr)


class Deployed(nn.Module):
    """A network with its preprocessing: stored images (N, size, size, 3) uint8 → logits."""

    def __init__(self, network: AlexNet, preprocess: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.register_buffer("mean", preprocess.mean)
        self.first = (preprocess.size - preprocess.crop_size) // 2
        self.crop_size, self.input_size, self.scale = preprocess.crop_size, preprocess.input_size, preprocess.scale

    def forward(self, images: Tensor) -> Tensor:
        center = slice(self.first, self.first + self.crop_size)
        crop = (images.float() - self.mean)[:, center, center] * self.scale
        return self.network(resize_batch(crop.permute(0, 3, 1, 2), self.input_size))


def _check_words(to: str, preprocessing: str, int8: bool, repo: str | None) -> None:
    check_choice(to, FORMATS, "format")
    if preprocessing not in PREPROCESSING:
        raise UsageError(f"preprocessing is {preprocessing!r}; there are: {', '.join(PREPROCESSING)}")
    if int8 and to != "onnx":
        raise UsageError("8-bit weights are for --to onnx")
    if repo is not None and to != "hub":
        raise UsageError("a repository is for --to hub")


def _write_config(folder: Path, config: Config) -> None:
    write_atomic(folder / "classes.json", json.dumps(config.labels, indent=1, ensure_ascii=False).encode())
    write_atomic(folder / "config.json", _config_text(config, indent=1).encode())


def _config_text(config: Config, indent: int | None = None) -> str:
    return json.dumps(config.to_dict(), indent=indent, ensure_ascii=False)


def _write_onnx(
    file: Path, network: AlexNet, preprocess: Preprocessing, config: Config, inside: bool, int8: bool
) -> None:
    from alexnet.weights.onnx_writer import to_onnx

    model = to_onnx(
        network,
        input_size=config.input_size,
        preprocess=preprocess if inside else None,
        config=_config_text(config),
        int8=int8,
    )
    write_atomic(file, model.SerializeToString())


def _torch_export(network: AlexNet, preprocess: Preprocessing, inside: bool) -> bytes:
    module: nn.Module = network
    side = preprocess.input_size or preprocess.crop_size
    example = torch.zeros(2, 3, side, side)
    if inside:
        module = Deployed(network, preprocess).eval()
        example = torch.zeros(2, preprocess.size, preprocess.size, 3, dtype=torch.uint8)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("images")},))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # of torch's own making, and of no consequence
        torch.export.save(program, content)
    return content.getvalue()


def _safetensors(network: AlexNet, preprocess: Preprocessing, config: Config) -> bytes:
    """Our layout, with config.json in the header: the file alone can be imported."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    tensors[MEAN] = preprocess.mean.contiguous()
    return to_safetensors(tensors, {"alexnet.config": _config_text(config), "format": "pt"})


def _images(config: Config) -> Tensor:
    """Stored images that the export is tried on: of the training's dataset, else noise at several scales."""
    try:
        split = _measured(config, None)[1]
        indices = np.linspace(0, len(split) - 1, _CHECKED).astype(np.int64)
        return torch.from_numpy(np.array(split.gather(indices)))
    except AlexNetError:
        generator = torch.Generator().manual_seed(0)
        scales = [torch.rand(1, 3, side, side, generator=generator) for side in (2, 8, 32, 128)]
        blown = [nn.functional.interpolate(noise, size=(config.size, config.size)) for noise in scales]
        return (torch.cat(blown) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@torch.inference_mode()
def _difference(
    to: str, file: Path, network: AlexNet, preprocess: Preprocessing, inside: bool, images: Tensor
) -> float | None:
    """The largest difference of a probability between the export and the run; None where nothing can run it."""
    expected = network(preprocess.center(images)).softmax(1)
    given = images if inside else preprocess.center(images).contiguous()
    if to == "onnx":
        session = _session(file)
        if session is None:
            return None
        logits = torch.from_numpy(_answer(session, given))
    elif to == "torch-export":
        logits = torch.export.load(file).module()(given)
    else:
        from alexnet.weights.importing import read_weights

        found = read_weights(file)
        again = Config.network(found.config) if found.config else network
        again.load_state_dict(found.weights)
        logits = again.eval()(preprocess.center(images))
    return float((logits.softmax(1) - expected).abs().max())


def _session(file: Path) -> Any:
    """ONNX Runtime on a file; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def _answer(session: Any, images: Tensor) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def _cost_of_int8(
    file: Path,
    network: AlexNet,
    preprocess: Preprocessing,
    config: Config,
    inside: bool,
    data: str | os.PathLike[str] | None,
) -> Precision | None:
    """Accuracy of the central view with float32 and with 8-bit weights; None where there is nothing to measure on."""
    session = _session(file)
    try:
        path, split = _measured(config, data)
    except AlexNetError:
        if data is not None:
            raise
        return None
    if session is None:
        return None
    right = np.zeros(2)
    same = 0
    for batch in evaluation_batches(split, 64):
        crops = preprocess.center(batch.images)
        with torch.inference_mode():
            ours = network(crops).argmax(1).numpy()
        theirs = _answer(session, batch.images if inside else crops.contiguous()).argmax(1)
        labels = batch.labels.numpy()
        right += (ours == labels).sum(), (theirs == labels).sum()
        same += int((ours == theirs).sum())
    count = len(split)
    return Precision(path, split.name, count, right[0] / count, right[1] / count, same / count)


def _measured(config: Config, data: str | os.PathLike[str] | None) -> tuple[str, Split]:
    """The split to measure on: test, else val, of `data`, or of the dataset that the run was trained on."""
    path = data if data is not None else config.dataset.get("path")
    if not path:
        raise AlexNetError("the run does not say what it was trained on: name a prepared dataset with --data")
    dataset = PreparedDataset.open(path)
    if dataset.classes != config.classes or dataset.size != config.size:
        raise AlexNetError(f"{path} has other classes or another size than the run")
    if dataset.measured_on is None:
        raise AlexNetError(f"{path} has no images in test or val")
    return str(path), dataset.split(dataset.measured_on)


def _say(target: Path, to: str, difference: float | None, cost: Precision | None) -> None:
    size = sum(file.stat().st_size for file in target.iterdir())
    words = f"{target}: {FILES[to]} and its card, {size / 1e6:.0f} MB"
    if difference is None:
        words += "; not tried, since onnxruntime is not installed"
    else:
        words += f"; its probabilities are those of the run to {difference:.1g}" if difference else "; exact"
    print(words, file=sys.stderr)
    if cost is not None:
        print(cost.words(), file=sys.stderr)
