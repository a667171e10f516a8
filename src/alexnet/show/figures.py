"""Every figure of the report, each a function that returns a matplotlib figure: for notebooks.

from alexnet import Run, evaluate
from alexnet.show import figures

figures.losses(Run.open("run"))
figures.confusion_matrix(evaluate("run", "data"))
figures.first_layer_kernels(Run.open("run").load()[0])
"""

from alexnet.show.attribution import looks, where_it_looks
from alexnet.show.curves import errors, layer_updates, layer_weights, losses
from alexnet.show.kernels import feature_maps, first_layer_kernels
from alexnet.show.measures import confusion_matrix, per_class, precision_recall, reliability, roc
from alexnet.show.neighbours import neighbours
from alexnet.show.pictures import mistakes, top_five

__all__ = [
    "confusion_matrix",
    "errors",
    "feature_maps",
    "first_layer_kernels",
    "layer_updates",
    "layer_weights",
    "looks",
    "losses",
    "mistakes",
    "neighbours",
    "per_class",
    "precision_recall",
    "reliability",
    "roc",
    "top_five",
    "where_it_looks",
]
