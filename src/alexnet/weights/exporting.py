"""Export of a run's weights for other tools, with its decision rule and a model card.

Formats: ONNX, OpenVINO, safetensors, torch.export, Hugging Face hub.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from alexnet.data.augmentation import Preprocessing, resize_batch
from alexnet.data.dataset import Split
from alexnet.data.loading import evaluation_batches
from alexnet.network.model import AlexNet
from alexnet.runs.config import Config
from alexnet.runs.decision import DecisionRule
from alexnet.runs.run import MEAN, Run
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.files import write_array, write_atomic
from alexnet.runtime.progress import notify
from alexnet.weights.formats import EXPORT_FORMATS, ONNX_BASED, PREPROCESSING
from alexnet.weights.model_card import QuantizationLoss, model_card, rule_notes
from alexnet.weights.safetensors import DESCRIPTION

TOLERANCE = 1e-4
"""Largest difference of a probability between an export and its run."""
_CHECKED_IMAGES = 4
_BATCH_SIZE = 64


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
    """Write the weights of a run for other tools into a new folder.

    The folder holds the weights, config.json, classes.json and a model card (README.md) with a complete example. The
    exported file is run again and compared with the run before the folder appears.

    The decision rule of the run travels with it: decision.json is beside the weights and, for ONNX and OpenVINO, in the
    metadata of the model. A rule with a distance for *unknown* needs the features of an image: these two formats have
    them as a second output, ``features``, and decision.safetensors is beside it.

    Parameters
    ----------
    run : str or path
        The run folder.
    to : str
        A format of `EXPORT_FORMATS`: ``"onnx"``, ``"openvino"``, ``"safetensors"``, ``"torch-export"`` or
        ``"hub"``.
    out : str or path, optional
        The folder to create; by default RUN-FORMAT beside the run.
    preprocessing : str
        For ``"onnx"``, ``"openvino"`` and ``"torch-export"``. ``"inside"``: the model reads stored images,
        (N, size, size, 3) uint8 RGB. ``"beside"``: it reads the network's input, (N, 3, side, side) float32, and
        mean.npy and config.json say how to compute that. The output is the logits in both cases.
    int8 : bool
        For ``"onnx"``: 8-bit weights, a quarter of the file size. The loss of accuracy is measured on `data`.
    data : str or path, optional
        A prepared dataset for the measurement; by default that of the training, where it still exists.
    repo : str, optional
        For ``"hub"``: also upload to this repository, ``"owner/name"``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    AlexNetError
        If the folder exists already, or the exported file differs from the run. Nothing is left after an error.
    UsageError
        If options exclude each other or do not exist.
    """
    _check_options(to, preprocessing, int8, repo)
    opened = Run.open(run)
    source = opened.path if opened.path.name else opened.path.resolve()  # "." has no name of its own
    target = Path(out) if out is not None else source.with_name(f"{source.resolve().name}-{to}")
    if os.path.lexists(target):
        raise AlexNetError(f"{target} exists already: choose another folder with --out, or remove it")
    network, preprocess = opened.load("cpu")
    rule = opened.decision_rule(network)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        images = _example_images(opened)
        _write_config(temporary, opened.config)
        file = temporary / EXPORT_FORMATS[to].file
        inside = preprocessing == "inside"
        if to in ONNX_BASED:
            model = _onnx_model(network, preprocess, opened.config, rule, inside, int8)
            write_atomic(file, model) if to == "onnx" else _write_openvino(file, model, opened.config, rule)
        elif to == "torch-export":
            write_atomic(file, _torch_export(network, preprocess, inside))
        else:
            write_atomic(file, _safetensors(network, preprocess, opened.config))
        if EXPORT_FORMATS[to].is_program and not inside:
            write_array(temporary / "mean.npy", preprocess.mean.numpy())
        if rule is not None:
            rule.save(temporary)
        difference = _difference(to, file, network, preprocess, inside, images)
        if difference is not None and not int8 and not difference <= TOLERANCE:
            raise AlexNetError(
                f"not written: the probabilities of {to} differ from those of the run by {difference:.2g}"
            )
        loss = _quantization_loss(file, network, preprocess, opened, inside, data) if int8 else None
        card = model_card(opened, to, preprocessing, difference, int8, loss, rule)
        write_atomic(temporary / "README.md", card.encode("utf-8"))
        temporary.rename(target)
    except OSError as error:
        raise AlexNetError(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _report(target, to, difference, loss)
    for line in rule_notes(rule, to, int8):
        notify(line)
    if int8 and loss is None:
        notify("the accuracy with 8-bit weights was not measured: give a prepared dataset with --data")
    if repo is not None:
        upload(target, repo)
    return target


def upload(folder: Path, repo: str) -> None:
    """Upload an exported folder to a repository of the Hugging Face hub, which is created if it does not exist.

    Parameters
    ----------
    folder : Path
        The folder.
    repo : str
        The repository, ``"owner/name"``.

    Raises
    ------
    AlexNetError
        If the package huggingface_hub is missing, or the upload fails.
    """
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
        raise AlexNetError(f"{folder} is written, but can't be uploaded to {repo}: {reason}") from None
    notify(f"uploaded to {address}")


class NetworkWithPreprocessing(nn.Module):
    """A network with its preprocessing: stored images (N, size, size, 3) uint8 RGB → logits (N, classes)."""

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


def _check_options(to: str, preprocessing: str, int8: bool, repo: str | None) -> None:
    check_choice(to, EXPORT_FORMATS, "format")
    check_choice(preprocessing, PREPROCESSING, "preprocessing")
    if int8 and to != "onnx":
        raise UsageError("8-bit weights are for --to onnx: leave out --int8, or choose onnx")
    if repo is not None and to != "hub":
        raise UsageError("a repository is for --to hub: leave out --repo, or choose hub")


def _write_config(folder: Path, config: Config) -> None:
    write_atomic(folder / "classes.json", json.dumps(config.labels, indent=1, ensure_ascii=False).encode("utf-8"))
    write_atomic(folder / "config.json", _config_text(config, indent=1).encode("utf-8"))


def _config_text(config: Config, indent: int | None = None) -> str:
    return json.dumps(config.to_dict(), indent=indent, ensure_ascii=False)


def _onnx_model(
    network: AlexNet, preprocess: Preprocessing, config: Config, rule: DecisionRule | None, inside: bool, int8: bool
) -> bytes:
    from alexnet.weights.onnx_writer import to_onnx

    model = to_onnx(
        network,
        input_size=config.input_size,
        preprocess=preprocess if inside else None,
        config=_config_text(config),
        decision=None if rule is None else rule.to_json(),
        features=rule is not None and rule.distance is not None,
        int8=int8,
    )
    content: bytes = model.SerializeToString()
    return content


def _write_openvino(file: Path, onnx: bytes, config: Config, rule: DecisionRule | None) -> None:
    openvino = _openvino()
    model = openvino.Core().read_model(onnx, b"")
    model.set_rt_info(_config_text(config), ["alexnet", "config"])
    if rule is not None:
        model.set_rt_info(rule.to_json(), ["alexnet", "decision"])
    openvino.save_model(model, file, compress_to_fp16=False)


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise AlexNetError(
            f"OpenVINO requires the package openvino: pip install 'alexnet[openvino]' ({error})"
        ) from None
    return openvino


def _torch_export(network: AlexNet, preprocess: Preprocessing, inside: bool) -> bytes:
    module: nn.Module = network
    side = preprocess.input_size or preprocess.crop_size
    example = torch.zeros(2, 3, side, side)
    if inside:
        module = NetworkWithPreprocessing(network, preprocess).eval()
        example = torch.zeros(2, preprocess.size, preprocess.size, 3, dtype=torch.uint8)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("images")},))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # without consequence
        torch.export.save(program, content)
    return content.getvalue()


def _safetensors(network: AlexNet, preprocess: Preprocessing, config: Config) -> bytes:
    """This package's layout, with config.json in the header, so that the file alone can be imported."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    tensors[MEAN] = preprocess.mean.contiguous()
    return to_safetensors(tensors, {DESCRIPTION: _config_text(config), "format": "pt"})


def _example_images(run: Run) -> Tensor:
    """Stored images for the comparison: of the training's dataset, else noise at several scales."""
    try:
        split = _measured_split(run, None)[1]
        indices = np.linspace(0, len(split) - 1, _CHECKED_IMAGES).astype(np.int64)
        return torch.from_numpy(np.array(split.gather(indices)))
    except AlexNetError:
        generator = torch.Generator().manual_seed(0)
        scales = [torch.rand(1, 3, side, side, generator=generator) for side in (2, 8, 32, 128)]
        scaled = [nn.functional.interpolate(noise, size=(run.config.size, run.config.size)) for noise in scales]
        return (torch.cat(scaled) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@torch.inference_mode()
def _difference(
    to: str,
    file: Path,
    network: AlexNet,
    preprocess: Preprocessing,
    inside: bool,
    images: Tensor,
) -> float | None:
    """The largest difference of a probability between the export and the run; None without ONNX Runtime."""
    expected = network(preprocess.center(images)).softmax(1)
    given = images if inside else preprocess.center(images).contiguous()
    if to == "onnx":
        session = _session(file)
        if session is None:
            return None
        logits = torch.from_numpy(_outputs(session, given))
    elif to == "openvino":
        compiled = _openvino().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        logits = torch.from_numpy(compiled(given.numpy())["logits"])
    elif to == "torch-export":
        logits = torch.export.load(file).module()(given)
    else:
        from alexnet.weights.importing import read_weights

        stored = read_weights(file)
        reloaded = stored.config.network() if stored.config else network
        reloaded.load_state_dict(stored.weights)
        logits = reloaded.eval()(preprocess.center(images))
    return float((logits.softmax(1) - expected).abs().max())


def _session(file: Path) -> Any:
    """An ONNX Runtime session; None where the package is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def _outputs(session: Any, images: Tensor) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def _quantization_loss(
    file: Path,
    network: AlexNet,
    preprocess: Preprocessing,
    run: Run,
    inside: bool,
    data: str | os.PathLike[str] | None,
) -> QuantizationLoss | None:
    """Accuracy of the center crop with float32 and with 8-bit weights; None without a dataset to measure on."""
    session = _session(file)
    try:
        path, split = _measured_split(run, data)
    except AlexNetError:
        if data is not None:
            raise
        return None
    if session is None:
        return None
    correct = np.zeros(2)
    agreeing = 0
    for batch in evaluation_batches(split, _BATCH_SIZE):
        crops = preprocess.center(batch.images)
        with torch.inference_mode():
            float32 = network(crops).argmax(1).numpy()
        quantized = _outputs(session, batch.images if inside else crops.contiguous()).argmax(1)
        labels = batch.labels.numpy()
        correct += (float32 == labels).sum(), (quantized == labels).sum()
        agreeing += int((float32 == quantized).sum())
    count = len(split)
    return QuantizationLoss(path, split.name, count, correct[0] / count, correct[1] / count, agreeing / count)


def _measured_split(run: Run, data: str | os.PathLike[str] | None) -> tuple[str, Split]:
    """Path and split to measure on: test, else val, of `data`, or of the dataset that the run was trained on."""
    dataset = run.find_data(data)
    path = str(dataset.path)
    if dataset.classes != run.config.classes or dataset.size != run.config.size:
        raise AlexNetError(f"{path} has other classes or another size than the run")
    if dataset.measured_on is None:
        raise AlexNetError(f"{path} has no images in test or val")
    return path, dataset.split(dataset.measured_on)


def _report(target: Path, to: str, difference: float | None, loss: QuantizationLoss | None) -> None:
    size = sum(file.stat().st_size for file in target.iterdir())
    text = f"{target}: {EXPORT_FORMATS[to].file} and its model card, {size / 1e6:.0f} MB"
    if difference is None:
        text += "; not compared with the run, since onnxruntime is not installed"
    elif difference:
        text += f"; its probabilities differ from those of the run by at most {difference:.1g}"
    else:
        text += "; bitwise identical probabilities"
    notify(text)
    if loss is not None:
        notify(loss.text())
