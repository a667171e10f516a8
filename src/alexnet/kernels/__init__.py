"""Fast forms of memory-bound operations: machine code for a CPU, Triton for a GPU, each with a plain PyTorch form.

`alexnet.kernels.selection` decides which form runs. A fast form must not change a result beyond rounding: on a GPU each
Triton kernel is compared with its plain form (`alexnet.kernels.plain`) at its first use.
"""
