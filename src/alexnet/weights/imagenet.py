"""The 1000 classes of ILSVRC-2012, and the input statistics of the published networks."""

from __future__ import annotations

from importlib.resources import files

NUM_CLASSES = 1000

# RGB, 0 to 255: the mean of ILSVRC-2012's training images that is published with Caffe's networks
# (ilsvrc_2012_mean), and torchvision's mean and std (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of pixels 0 to 1).
CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)
TORCHVISION_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
TORCHVISION_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)


def imagenet_classes() -> tuple[list[str], list[str]]:
    """Return the WordNet ids of the classes and their descriptions.

    Returns
    -------
    ids, descriptions : list of str
        1000 each, in ascending order of the ids, which is the order of the outputs in Caffe and torchvision.

    Notes
    -----
    Source: the devkit of ILSVRC-2012 (`synsets` in meta.mat), with "crane bird" for the
    first of its two cranes, so that no two descriptions are the same.
    """
    lines = files(__package__).joinpath("imagenet.txt").read_text(encoding="ascii").splitlines()
    ids, descriptions = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return list(ids), list(descriptions)
