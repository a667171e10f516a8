"""The network: variants as tables of layers, modules, normalization, initialization, the optimized form."""
