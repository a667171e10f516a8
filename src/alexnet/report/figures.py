"""All figures of the report, each a function that returns a matplotlib figure, for notebooks.

from alexnet import Run, evaluate
from alexnet.report import figures

figures.losses(Run.open("run"))
figures.confusion_matrix(evaluate("run", "data"))
figures.first_layer_kernels(Run.open("run").load()[0])
"""

from alexnet.report.attribution import attribution_maps, attribution_overlays
from alexnet.report.curves import error_rates, layer_updates, layer_weights, losses
from alexnet.report.filters import feature_maps, first_layer_kernels
from alexnet.report.image_figures import mistakes, top_five
from alexnet.report.metric_figures import (
    confusion_matrix,
    per_class,
    precision_recall_curve,
    reliability_diagram,
    roc_curve,
)
from alexnet.report.neighbors import nearest_images

__all__ = [
    "attribution_maps",
    "attribution_overlays",
    "confusion_matrix",
    "error_rates",
    "feature_maps",
    "first_layer_kernels",
    "layer_updates",
    "layer_weights",
    "losses",
    "mistakes",
    "nearest_images",
    "per_class",
    "precision_recall_curve",
    "reliability_diagram",
    "roc_curve",
    "top_five",
]
