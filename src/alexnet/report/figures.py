"""Every figure of the report, each a function that returns a matplotlib figure: for notebooks.

from alexnet import Run, evaluate
from alexnet.report import figures

figures.losses(Run.open("run"))
figures.confusion_matrix(evaluate("run", "data"))
figures.first_layer_kernels(Run.open("run").load()[0])
"""

from alexnet.report.attribution import looks, where_it_looks
from alexnet.report.curves import errors, layer_updates, layer_weights, losses
from alexnet.report.filters import feature_maps, first_layer_kernels
from alexnet.report.image_figures import mistakes, top_five
from alexnet.report.metric_figures import confusion_matrix, per_class, precision_recall, reliability, roc
from alexnet.report.neighbors import neighbors

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
    "neighbors",
    "per_class",
    "precision_recall",
    "reliability",
    "roc",
    "top_five",
    "where_it_looks",
]
