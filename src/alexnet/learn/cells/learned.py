# %%
import torch

from alexnet.learn.digits import TRAIN, digits, network, train
from alexnet.search.exact import nearest

data = digits()
built = network((64, 128, 128, 10), seed=0, dropout=0.5)
train(built, data, epochs=20, lr=0.05, seed=0)
with torch.no_grad():
    features = built.eval()[:-1](data.inputs).numpy()
distances, rows = nearest(features[TRAIN : TRAIN + 3], features[:TRAIN], 5)
for query in range(3):
    print("class", data.labels[TRAIN + query], "nearest:", data.labels[rows[query]], distances[query].round(2))
# %%
for name, vectors in (("pixels", data.inputs.numpy()), ("features", features)):
    _, found = nearest(vectors[TRAIN:], vectors[:TRAIN], 1)
    print(name, f"{(data.labels[found[:, 0]] != data.labels[TRAIN:]).mean():.1%} wrong")
# %%
from sklearn.svm import SVC

machine = SVC().fit(data.inputs[:TRAIN].numpy(), data.labels[:TRAIN])
print("SVM", f"{1 - machine.score(data.inputs[TRAIN:].numpy(), data.labels[TRAIN:]):.1%} test error")
# %%
# Exercise: count the parameters of torchvision's network and of the paper's. Solution:
from alexnet import AlexNet

counts = {
    name: sum(p.numel() for p in AlexNet(name, 1000).parameters()) for name in ("paper", "one-tower", "one-weird-trick")
}
print(counts)
assert counts == {"paper": 60_965_224, "one-tower": 62_378_344, "one-weird-trick": 61_100_840}
