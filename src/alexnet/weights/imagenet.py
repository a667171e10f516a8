"""The 1000 classes of ILSVRC-2012, and the colors that published networks were trained to read."""

from __future__ import annotations

from importlib.resources import files

CLASSES = 1000

# RGB, 0-255: the mean of ILSVRC-2012's training images that comes with Caffe's networks (ilsvrc_2012_mean),
# and torchvision's mean and deviation (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of pixels of 0 to 1).
CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)
TORCHVISION_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
TORCHVISION_DEVIATION = (255 * 0.229, 255 * 0.224, 255 * 0.225)


def imagenet_classes() -> tuple[list[str], list[str]]:
    """WordNet ids, ascending, which is the order of the outputs in Caffe and torchvision; and what they are in words.

    Source: the devkit of ILSVRC-2012 (`synsets` in meta.mat; Caffe's synset_words.txt), with "crane bird" for the
    first of its two cranes, so that no two descriptions are the same.
    """
    lines = files(__package__).joinpath("imagenet.txt").read_text(encoding="ascii").splitlines()
    wnids, words = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return list(wnids), list(words)
