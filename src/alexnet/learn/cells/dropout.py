# %%
import torch

from alexnet.learn.digits import TRAIN, digits, network, train

data = digits()
built = network((64, 128, 128, 10), seed=0, dropout=0.5)
curve = train(built, data, epochs=20, lr=0.05, seed=0)
print("test error of the whole network:", f"{curve[-1, 2]:.1%}")
# %%
x = data.inputs[TRAIN + 5 : TRAIN + 6]
torch.manual_seed(0)
with torch.no_grad():
    whole = built.eval()(x).softmax(1)[0]
    sampled = torch.stack([built.train()(x).softmax(1)[0] for _ in range(200)])
answer = int(whole.argmax())
print("class", int(data.targets[TRAIN + 5]), "answer", answer)
print(f"whole network {whole[answer]:.4f}, mean of 200 sub-networks {sampled[:, answer].mean():.4f}")
print(f"standard deviation over the sub-networks {sampled[:, answer].std():.4f}")
# %%
# Exercise: of how many networks is their mean as good as the halved network, on the test images? Solution:
with torch.no_grad():
    tests, truth = data.inputs[TRAIN:], data.targets[TRAIN:]
    total = torch.zeros(len(tests), 10)
    for count in range(1, 51):
        total += built.train()(tests).softmax(1)
        if count in (1, 5, 50):
            print(count, f"{(total.argmax(1) != truth).float().mean():.1%}")
