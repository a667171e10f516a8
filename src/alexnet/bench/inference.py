"""Inference: ten views, the engines ONNX Runtime and OpenVINO, and the time to start."""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alexnet.bench.parts import Settings
from alexnet.bench.synthetic import photographs, random_run
from alexnet.bench.timing import Comparison, compared, in_turn
from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.inference import crops, probabilities
from alexnet.network.frozen import FrozenNetwork
from alexnet.network.model import AlexNet
from alexnet.runs.recipe import recipes
from alexnet.runtime.devices import autocast, choose_device, choose_precision
from alexnet.runtime.progress import notify


def ten_views(settings: Settings) -> list[Comparison]:
    """Compare the paper's ten views of a batch of prepared images with ten forward passes of the plain network."""
    device = choose_device()
    count = settings.batch_size or 64
    network = AlexNet("paper").to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = torch.randint(256, (count, 256, 256, 3), dtype=torch.uint8, device=device)
    preprocess = Preprocessing(torch.full((256, 256, 3), 120.0, device=device), 224, 1.0)
    rows = []
    for dtype in dict.fromkeys((torch.float32, choose_precision("auto", device))):
        working = FrozenNetwork(network, dtype)

        @torch.inference_mode()
        def apart(dtype: torch.dtype = dtype) -> None:
            with autocast(device, dtype):
                torch.stack([network(crop).float().softmax(-1) for crop in crops(images, preprocess, 10)]).mean(0)

        @torch.inference_mode()
        def apart_and_fast(working: FrozenNetwork = working) -> None:
            torch.stack([working(crop).float() for crop in crops(images, preprocess, 10)])

        def ours(working: FrozenNetwork = working) -> None:
            probabilities(working, preprocess, images, 10)

        seconds = in_turn({"ours": ours, "apart": apart, "fast": apart_and_fast}, settings.rounds)
        gain = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["fast"], strict=True))
        rows.append(
            compared(
                f"ten-view evaluation, {str(dtype).removeprefix('torch.')}, batch {count}",
                "ten plain forward passes",
                *(seconds["ours"], seconds["apart"], 1.15),
                images_per_second=count / statistics.median(seconds["ours"]),
                against_ten_of_our_fast_passes=gain,
            )
        )
    return rows


BATCHES = (1, 2, 8, 16, 32, 64)
OURS = "ours"
PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def small(settings: Settings) -> list[Comparison]:
    """The network that the recipe `small` trains: the paper's with batch normalization, for 195 pixels."""
    return _against_engines("small", settings)


def paper(settings: Settings) -> list[Comparison]:
    """The network of the paper."""
    return _against_engines("paper", settings)


def one_weird_trick(settings: Settings) -> list[Comparison]:
    """The network without response normalization, as torchvision has it."""
    return _against_engines("one-weird-trick", settings)


def _against_engines(name: str, settings: Settings) -> list[Comparison]:
    """Compare inference with ONNX Runtime and OpenVINO, which read the same exported file and use as many threads.

    In int8, for the smallest and largest batch, the engines run the file after static quantization by ONNX Runtime,
    beside our bfloat16.
    """
    engines = _Engines(*_network(name), settings.folder)
    counts = [settings.batch_size] if settings.batch_size else [*BATCHES]
    rows: list[Comparison] = []
    notify(f"ratio to the best at batch {''.join(f'{count:7}' for count in counts)}")
    for precision in _precisions():
        measured = counts if precision != "int8" else sorted({counts[0], counts[-1]})
        compared_cells = (
            _compare_engines(engines, name, precision, count, 2 * settings.rounds + 1) for count in measured
        )
        cells = [cell for cell in compared_cells if cell is not None]
        ratios = {cell.figures["batch"]: f"{cell.ratio:.2f}" for cell in cells}
        line = "".join(f"{ratios.get(count, ''):>7}" for count in counts)
        notify(f"{name + ', ' + precision:27}{line}")
        rows += cells
    return rows


def _network(variant: str) -> tuple[AlexNet, int]:
    """A network with random weights, and the side of its input."""
    torch.manual_seed(0)
    if variant == "small":
        recipe = recipes()[variant]
        network = AlexNet(recipe.variant, 10, normalization=recipe.normalization, init="he")
        side = recipe.input_size or network.input_size
    else:
        network = AlexNet(variant, init="he")
        side = network.input_size
    torch.nn.init.normal_(network.get_submodule(network.output_layer).weight, 0.0, 0.02)  # type: ignore[arg-type]
    return network.to(memory_format=torch.channels_last).eval(), side  # type: ignore[call-overload]


def _precisions() -> list[str]:
    bfloat16 = choose_precision("auto", torch.device("cpu")) == torch.bfloat16
    return ["float32", "bfloat16", "int8"] if bfloat16 else ["float32", "int8"]


class _Engines:
    """The engines for one network: a function of a batch for each, by precision."""

    def __init__(self, network: AlexNet, side: int, folder: Path) -> None:
        from alexnet.weights.onnx_writer import to_onnx

        self.network, self.side = network, side
        self.files = {"float32": folder / "model.onnx", "int8": folder / "int8.onnx"}
        self.files["bfloat16"] = self.files["float32"]
        self.files["float32"].write_bytes(to_onnx(network, input_size=side).SerializeToString())
        self._quantize()
        self.ours = {name: FrozenNetwork(network, getattr(torch, name)) for name in ("float32", "bfloat16")}

    def functions(self, precision: str, count: int) -> dict[str, Callable[[], torch.Tensor]]:
        """From the same random images to logits, by the name of the engine; ours first.

        An engine that cannot compile the network for this machine is left out and named.
        """
        images = 50 * torch.randn(count, 3, self.side, self.side, generator=torch.Generator().manual_seed(1))
        channels_last = images.contiguous(memory_format=torch.channels_last)
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        working = self.ours[str(dtype).removeprefix("torch.")]

        @torch.inference_mode()
        def ours() -> torch.Tensor:
            return working(channels_last).float()

        @torch.inference_mode()
        def plain() -> torch.Tensor:
            with autocast(torch.device("cpu"), dtype):
                return self.network(channels_last).float()

        functions = {OURS: ours, "torch": plain}
        engines = {"openvino": self._openvino}
        if precision != "bfloat16":  # ONNX Runtime has no kernels for it on a CPU
            engines["onnxruntime"] = self._onnxruntime
        for name, compiled in engines.items():
            try:
                functions[name] = compiled(precision, images.numpy())
            except Exception as error:  # each engine has errors of its own
                reason = str(error).strip().splitlines()[-1]
                notify(f"{name} left out for {precision}, batch {count}: {type(error).__name__}: {reason}")
        return functions

    def _onnxruntime(self, precision: str, values: Any) -> Callable[[], torch.Tensor]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(self.files[precision], options, providers=["CPUExecutionProvider"])
        return lambda: torch.from_numpy(session.run(None, {"input": values})[0])

    def _openvino(self, precision: str, values: Any) -> Callable[[], torch.Tensor]:
        import openvino

        core = openvino.Core()
        model = core.read_model(self.files[precision])
        model.reshape(values.shape)
        hints = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(model, "CPU", hints).create_infer_request()
        return lambda: torch.from_numpy(request.infer({0: values}, share_inputs=True, share_outputs=True)[0])

    def _quantize(self) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class Images(CalibrationDataReader):
            def __init__(self, side: int) -> None:
                self.batches = iter([{"input": (50 * torch.randn(8, 3, side, side)).numpy()}])

            def get_next(self) -> Any:
                return next(self.batches, None)

        logging.getLogger().setLevel(logging.ERROR)  # it advises a preprocessing that these graphs do not need
        quantize_static(
            *(self.files["float32"], self.files["int8"], Images(self.side)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
        )


def _compare_engines(engines: _Engines, variant: str, precision: str, count: int, rounds: int) -> Comparison | None:
    """Compare with the engines that run the network; None without one."""
    functions = engines.functions(precision, count)
    peers = {name: label for name, label in PEERS.items() if name in functions}
    if not peers:
        return None
    outputs = {name: function() for name, function in functions.items()}
    scale = outputs[OURS].abs().max()
    differences = {name: float((logits - outputs[OURS]).abs().max() / scale) for name, logits in outputs.items()}
    del differences[OURS]
    tolerance = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.5}[precision]
    for name, difference in differences.items():
        assert difference <= tolerance, f"{variant}, {precision}: the logits of {name} differ by {difference:.2g}"
    seconds = in_turn(functions, rounds, max(1, 8 // count), pause=0.05)
    best = [min(seconds[name][number] for name in peers) for number in range(rounds)]
    return compared(
        f"inference, {variant}, batch {count}, {precision}",
        f"the faster of {' and '.join(peers.values())} in each round" if len(peers) > 1 else next(iter(peers.values())),
        *(seconds[OURS], best, None if precision == "int8" else 1.0),
        batch=count,
        milliseconds={name: 1e3 * statistics.median(values) for name, values in seconds.items()},
        largest_difference_of_logits=differences,
    )


def startup(settings: Settings) -> list[Comparison]:
    """Compare `alexnet --help` with a Python that does nothing, and a prediction for one image with `import torch`."""
    folder = settings.folder
    run = random_run(folder / "run")
    (image,) = photographs(folder / "image", 1)
    ours = "import sys; from alexnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    commands = {
        "help": ["-c", ours, "--help"],
        "pass": ["-c", "pass"],
        "predict": ["-c", ours, "predict", str(run), str(image)],
        "torch": ["-c", "import torch"],
    }

    def runner(arguments: list[str]):  # type: ignore[no-untyped-def]
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    seconds = in_turn({name: runner(arguments) for name, arguments in commands.items()}, 3 * settings.rounds)
    extra = [max(a - b, 1e-6) for a, b in zip(seconds["help"], seconds["pass"], strict=True)]
    return [
        compared(
            "`alexnet --help`, beyond the start of Python",
            "150 ms",
            *(extra, [0.15] * len(extra), 1.0),
            milliseconds=1e3 * statistics.median(extra),
            python_milliseconds=1e3 * statistics.median(seconds["pass"]),
        ),
        compared(
            "`alexnet predict` of one image, from a cold start",
            "import torch",
            *(seconds["predict"], seconds["torch"], None),
            milliseconds=1e3 * statistics.median(seconds["predict"]),
            import_torch_milliseconds=1e3 * statistics.median(seconds["torch"]),
        ),
    ]
