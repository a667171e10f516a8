"""Inference: ten views, ONNX Runtime with the same weights, and the time to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from alexnet.bench.parts import Settings
from alexnet.bench.peers import photographs
from alexnet.bench.timing import Comparison, compared, in_turn
from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.inference import crops, probabilities
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Config, Run
from alexnet.runtime.devices import autocast, choose_device, choose_precision


def ten_views(settings: Settings) -> list[Comparison]:
    """Compare the paper's ten views of a batch of prepared images with ten forward passes of the plain network."""
    device = choose_device()
    count = settings.batch_size or 64
    network = AlexNet("paper").to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = torch.randint(256, (count, 256, 256, 3), dtype=torch.uint8, device=device)
    preprocess = Preprocessing(torch.full((256, 256, 3), 120.0, device=device), 224, 1.0)
    rows = []
    for dtype in dict.fromkeys((torch.float32, choose_precision("auto", device))):
        working = OptimizedNetwork(network, dtype)

        @torch.inference_mode()
        def apart(dtype: torch.dtype = dtype) -> None:
            with autocast(device, dtype):
                torch.stack([network(crop).float().softmax(-1) for crop in crops(images, preprocess, 10)]).mean(0)

        @torch.inference_mode()
        def apart_and_fast(working: OptimizedNetwork = working) -> None:
            torch.stack([working(crop).float() for crop in crops(images, preprocess, 10)])

        def ours(working: OptimizedNetwork = working) -> None:
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


def against_onnx_runtime(settings: Settings) -> list[Comparison]:
    """Compare inference of one image and of 64 with ONNX Runtime in float32, with the same weights and threads."""
    import onnxruntime

    from alexnet.weights.onnx_writer import to_onnx

    network = AlexNet("paper").to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "alexnet.onnx"
        file.write_bytes(to_onnx(network).SerializeToString())
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = []
    for dtype in dict.fromkeys((torch.float32, choose_precision("auto", torch.device("cpu")))):
        working = OptimizedNetwork(network, dtype)
        for count, repeats in ((1, 20), (64, 1)):
            images = torch.randn(count, 3, 227, 227) * 50
            last = images.contiguous(memory_format=torch.channels_last)
            values = images.numpy()

            @torch.inference_mode()
            def ours(working: OptimizedNetwork = working, last: torch.Tensor = last) -> torch.Tensor:
                return working(last).float()

            def theirs(values=values):  # type: ignore[no-untyped-def]
                return session.run(None, {name: values})[0]

            if dtype == torch.float32:
                difference = (ours() - torch.from_numpy(theirs())).abs().max()
                assert difference <= 1e-3 * ours().abs().max() + 1e-5, f"the logits differ by {difference}"
            seconds = in_turn({"ours": ours, "theirs": theirs}, 2 * settings.rounds, repeats)
            rows.append(
                compared(
                    f"inference, batch {count}, {str(dtype).removeprefix('torch.')}",
                    "ONNX Runtime, float32, the same weights and threads",
                    *(seconds["ours"], seconds["theirs"], 1.0 if dtype == torch.float32 else None),
                    milliseconds=1e3 * statistics.median(seconds["ours"]),
                    onnx_runtime_milliseconds=1e3 * statistics.median(seconds["theirs"]),
                )
            )
    return rows


def startup(settings: Settings) -> list[Comparison]:
    """Compare `alexnet --help` with a Python that does nothing, and a prediction for one image with `import torch`."""
    folder = settings.folder
    network = AlexNet("paper")
    recipe = recipes()["paper"]
    run = Run.create(
        folder / "run",
        Config(
            recipe, [f"class {i}" for i in range(1000)], size=256, crop_size=224, input_size=224, scale=1.0, dataset={}
        ),
    )
    run.save_weights("best", network.state_dict(), torch.full((256, 256, 3), 120.0))
    (image,) = photographs(folder / "image", 1)
    ours = "import sys; from alexnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    commands = {
        "help": ["-c", ours, "--help"],
        "pass": ["-c", "pass"],
        "predict": ["-c", ours, "predict", str(run.path), str(image)],
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
