"""Compare the optimized and the plain step: 200 updates of the paper's rule in float32, and plain in float64.

    python benchmarks/equality.py [--steps 200] [--batch-size 8] [--input-size 99] [--lr 1e-4] [--out FILE]

All three start from the same weights and see the same images. Dropout is off, because the two forms draw its masks
differently. Where the two largest values of a pooling window differ only by rounding, either may be the maximum, so
that two correct float32 trainings diverge; the float64 training shows the share of rounding. The distance of the
optimized training from it should be that of the plain float32 training, up to a small factor. At larger learning rates
batches of this size make the training chaotic.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch.nn import functional

from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.progress import progress
from alexnet.runtime.provenance import provenance, write_result
from alexnet.training.optimizers import PaperSGD, update_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--input-size", type=int, default=99)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--out", type=Path, default=Path("docs/results/equality.json"))
    arguments = parser.parse_args()
    keep_freed_memory()

    networks = {}
    for name, dtype in (("plain float64", torch.float64), ("plain float32", torch.float32), ("fast", torch.float32)):
        torch.manual_seed(0)
        networks[name] = AlexNet("paper", 10, init="he", dropout=0.0).to(dtype).to(memory_format=torch.channels_last)
    forms = {**networks, "fast": OptimizedNetwork(networks["fast"])}
    rules = {name: PaperSGD(network.parameters(), lr=arguments.lr) for name, network in networks.items()}
    start = [p.detach().double().clone() for p in networks["fast"].parameters()]

    generator = torch.Generator().manual_seed(1)
    losses: dict[str, list[float]] = {name: [] for name in networks}
    with progress(arguments.steps, "steps") as bar:
        for _ in range(arguments.steps):
            shape = (arguments.batch_size, 3, arguments.input_size, arguments.input_size)
            labels = torch.randint(10, (arguments.batch_size,), generator=generator)
            images = torch.randn(shape, generator=generator) + 0.3 * labels[:, None, None, None]
            images = images.contiguous(memory_format=torch.channels_last)
            for name, form in forms.items():
                dtype = next(networks[name].parameters()).dtype
                loss = functional.cross_entropy(form(images.to(dtype)), labels)
                loss.backward()
                update_all([rules[name]], {})
                losses[name].append(loss.item())
            bar.advance(loss=f"{loss.item():.3f}")

    def distance(one: str, other: list[torch.Tensor]) -> float:
        """Distance of all weights from others, relative to their distance from the start."""
        weights = [p.detach().double() for p in networks[one].parameters()]
        apart = sum(float((a - b).square().sum()) for a, b in zip(weights, other, strict=True))
        total = sum(float((a - b).square().sum()) for a, b in zip(weights, start, strict=True))
        return (apart / total) ** 0.5

    exact = [p.detach() for p in networks["plain float64"].parameters()]
    report = {
        "description": "distance of all weights from the float64 training, relative to their distance from the start",
        "plain float32 from float64": distance("plain float32", exact),
        "fast from float64": distance("fast", exact),
        "fast from plain float32": distance(
            "fast", [p.detach().double() for p in networks["plain float32"].parameters()]
        ),
        "last losses": {name: values[-1] for name, values in losses.items()},
        "greatest difference of a loss": max(
            abs(a - b) for a, b in zip(losses["fast"], losses["plain float64"], strict=True)
        ),
        **provenance(" ".join(["python", *sys.argv])),
    }
    print(json.dumps(report, indent=1))
    write_result(arguments.out, report)


if __name__ == "__main__":
    main()
