"""
One linear system, two faces
============================

A state-space layer is a recurrence, to deploy, and a convolution or a scan, to train: the same weights, the same
outputs. On a regular grid the record is convolved with the layer's impulse response; where every sample has a gap of
its own it is scanned; and either way it can be fed sample by sample, with the state as its only memory.
"""

# %%
import time

import matplotlib.pyplot as plt
import torch

from statespace.layers import S4D

torch.manual_seed(0)
layer = S4D(d_model=16, d_state=32).double()
u = torch.randn(1, 500, 16, dtype=torch.double)


def fold(layer, u, dt=None):
    """The recurrent face: one step after the other."""
    state, outputs = layer.initial_state(len(u)), []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state, None if dt is None else dt[:, k])
        outputs.append(y)
    return torch.stack(outputs, dim=1)


# %%
# On the grid all three ways agree to rounding.
with torch.no_grad():
    convolved, _ = layer(u)
    scan = S4D(d_model=16, d_state=32, mode="scan").double()
    scan.load_state_dict(layer.state_dict())
    scanned, _ = scan(u)
    folded = fold(layer, u)
print("convolution - scan:", float((convolved - scanned).abs().max()))
print("convolution - steps:", float((convolved - folded).abs().max()))

# %%
# With irregular gaps the system has no single impulse response any more. The scan and the steps still agree, and
# cutting the record in two changes nothing when the state is passed on.
dt = torch.rand(1, 500, dtype=torch.double) * 3 + 0.01
with torch.no_grad():
    scanned, _ = layer(u, dt)
    folded = fold(layer, u, dt)
    head, state = layer(u[:, :123], dt[:, :123])
    tail, _ = layer(u[:, 123:], dt[:, 123:], state)
print("scan - steps:", float((scanned - folded).abs().max()))
print("one shot - two pieces:", float((scanned - torch.cat([head, tail], dim=1)).abs().max()))

# %%
# What the faces cost: the parallel ones are for training, the steps for a stream that never ends.
layer = layer.float()
lengths = [128, 512, 2048]
seconds = {"convolution": [], "scan": [], "steps": []}
for length in lengths:
    u = torch.randn(1, length, 16)
    gaps = torch.rand(1, length) + 0.5
    runs = {
        "convolution": lambda u=u: layer(u),
        "scan": lambda u=u, gaps=gaps: layer(u, gaps),
        "steps": lambda u=u: fold(layer, u),
    }
    for name, run in runs.items():
        with torch.no_grad():
            run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, values in seconds.items():
    axis.loglog(lengths, values, "o-", label=name)
axis.set(xlabel="samples", ylabel="seconds, forward")
axis.legend()
plt.show()
