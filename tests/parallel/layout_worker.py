"""The script that `torchrun` starts in the tests: the command `alexnet`, or a list of trainings, on small networks."""

import json
import sys
from pathlib import Path

from alexnet.network.rows import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    FullyConnected,
    GlobalPool,
    LocalNorm,
    Pool,
    Residual,
)
from alexnet.network.variants import Variant, register_variant

CLASSIFIER = (
    *(FullyConnected("fc6", 34), Activation("relu6"), Dropout("drop6")),
    *(FullyConnected("fc7", 30), Activation("relu7"), Dropout("drop7"), FullyConnected("logits", None)),
)

register_variant(
    Variant(
        name="narrow",
        description="The paper's network with narrow layers.",
        input_size=67,
        init="he",
        layers=(
            *(Conv("conv1", 32, 11, stride=4, overhang=True, batch_norm="batch1"), Activation("relu1")),
            *(LocalNorm("norm1", 2), Pool("pool1")),
            *(Conv("conv2", 32, 5, padding=2, groups=2, batch_norm="batch2"), Activation("relu2")),
            *(LocalNorm("norm2", 2), Pool("pool2")),
            *(Conv("conv3", 32, 3, padding=1, batch_norm="batch3"), Activation("relu3")),
            *(Conv("conv4", 32, 3, padding=1, groups=2, batch_norm="batch4"), Activation("relu4")),
            *(Conv("conv5", 16, 3, padding=1, groups=2, batch_norm="batch5"), Activation("relu5"), Pool("pool5")),
            *CLASSIFIER,
        ),
    )
)

register_variant(
    Variant(
        name="narrow-weird",
        description="Without towers, and with dropout in front of fc6, as torchvision has it.",
        input_size=67,
        init="he",
        layers=(
            *(Conv("conv1", 16, 11, stride=4, padding=2, batch_norm="batch1"), Activation("relu1"), Pool("pool1")),
            *(Conv("conv2", 16, 5, padding=2, batch_norm="batch2"), Activation("relu2"), Pool("pool2")),
            *(Dropout("drop5"), *CLASSIFIER),
        ),
    )
)

register_variant(
    Variant(
        name="narrow-residual",
        description="Two residual blocks, of the identity and of a projection.",
        input_size=67,
        init="he",
        layers=(
            *(Conv("conv1", 8, 7, stride=4, bias=None), BatchNorm("batch1"), Activation("relu1")),
            Residual("block1", (Conv("conv_a", 8, 3, padding=1, bias=None), BatchNorm("batch_a"))),
            Residual(
                "block2",
                (Conv("conv_a", 12, 3, stride=2, padding=1, bias=None), BatchNorm("batch_a")),
                (Conv("conv", 12, 1, stride=2, bias=None), BatchNorm("batch")),
            ),
            *(Activation("relu2"), GlobalPool("pool"), FullyConnected("logits", None)),
        ),
    )
)


def main() -> int:
    if not sys.argv[1].endswith(".json"):
        from alexnet.cli.main import main as alexnet

        return alexnet()
    from alexnet.parallel.collectives import part
    from alexnet.training.train import set_up_training

    for training in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        values = training["recipe"]
        started = set_up_training(
            training["data"], training["out"], checkpoint_interval=1e9, **training["options"], **values
        )
        started.train(training.get("steps"))
    part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
