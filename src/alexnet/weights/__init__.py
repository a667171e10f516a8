"""Weights of other tools: one module per foreign format, the registry of formats, import and export."""

from alexnet.weights.formats import WeightFile, WeightFormat, register_weight_format, weight_formats

__all__ = ["WeightFile", "WeightFormat", "register_weight_format", "weight_formats"]
