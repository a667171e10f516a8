# %%
from alexnet.parallel.plan import Work

work = Work.of("paper")
print("numbers that cross, per image:", work.crossing)
batch, size = 16, 4
sent = batch * size * (sum(work.crossing) + work.classes / 2)
print("bytes per process and step, forward and back:", f"{sent:,.0f}")
# %%
from alexnet.experiments.towers import permutation_p, saturation
from alexnet.learn.computation import Starter

kernels = Starter().network.get_parameter("conv1.weight").detach()
values = saturation(kernels)
print("saturation of the starter's towers:", values[:48].mean().round(3), values[48:].mean().round(3))
print("p:", permutation_p(values, 10_000))
# %%
import json

from alexnet.experiments.catalog import shipped_results

measured = json.loads((shipped_results() / "towers-long.json").read_text("utf-8"))
print("p of three seeds, what was learned:", measured["learned"]["p"])
# %%
# Exercise: from which batch on do the towers send more than data parallelism does? Solution:
parameters = work.convolution_parameters + work.full_parameters
limit = parameters / (sum(work.crossing) + work.classes / 2)
print(round(limit))
assert 990 < limit < 1000
