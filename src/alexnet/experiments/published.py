"""Published results on ImageNet: tables 1 and 2 of the paper, and the logs released with its code."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """Published errors of a variant on a split of ILSVRC, with one or ten views."""

    year: str
    variant: str
    split: str
    views: int
    top1_error: float
    top5_error: float
    log_loss: float | None
    what: str


PUBLISHED = (
    Published("2012", "paper", "val", 10, 0.407, 0.182, None, "table 2, 1 CNN"),
    Published("2010", "paper", "test", 10, 0.375, 0.170, None, "table 1, CNN"),
    Published("2010", "paper", "test", 1, 0.390, 0.183, None, "section 4.1, without ten crops"),
    Published("2012", "released-2012", "val", 10, 0.406640, 0.182100, 1.741473, "configuration #145, epoch 91"),
    Published("2012", "released-2012", "val", 10, 0.4025, 0.1799, 1.7257, "configuration #145, another released log"),
    Published("2010", "released-2012", "test", 10, 0.374727, 0.169987, 1.614660, "configuration #145 on 2010"),
    Published("2010", "released-2012", "test", 1, 0.390247, 0.182953, 1.706031, "configuration #145 on 2010"),
    Published("2010", "released-2012-half", "test", 10, 0.391680, 0.182287, 1.702802, "configuration #145-half"),
    Published("2012", "released-2012-no-norm", "val", 10, 0.420340, 0.193620, 1.822358, "configuration #148"),
    Published(
        year="2012",
        variant="released-2012-six-conv",
        split="val",
        views=10,
        top1_error=0.389900,
        top5_error=0.166220,
        log_loss=1.633191,
        what="configuration #146, which started from weights of Fall 2011: not this training",
    ),
)

DESIGNED_FEATURES = (("sparse coding", 0.471, 0.282), ("SIFT + Fisher vectors", 0.457, 0.257))
"""Table 1: top-1 and top-5 error of the best methods before, on the test images of ILSVRC-2010."""

TORCHVISION = (1 - 0.56522, 1 - 0.79066)
"""Top-1 and top-5 error of torchvision's reference weights (variant `one-weird-trick`) with the center crop, on the
validation images of ILSVRC-2012."""

SEVEN_NETWORKS = 0.153
"""Table 2: top-5 error of seven networks averaged, on the test images of ILSVRC-2012."""

PRINTED_UNITS, PRINTED_CROPS = 253_440, 2048
"""Section 3.5: units of the first layer; 4.1: crops and flips of an image. Both differ from what the sizes give."""
