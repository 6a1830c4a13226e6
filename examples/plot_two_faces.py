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
# What the faces cost, beside causal attention of the same width: the convolution and the scan grow with the length of
# the record, attention with its square. The steps cost the same at every length; they are for a stream that never
# ends, not for a record that is at hand.
layer = layer.float()
projection = torch.nn.Linear(16, 3 * 16)


def attend(u):
    """Causal attention over the record with two heads."""
    query, key, value = projection(u).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)


lengths = [256, 1024, 4096, 16384]
seconds = {"convolution": [], "scan": [], "attention": [], "steps": []}
for length in lengths:
    u = torch.randn(1, length, 16)
    gaps = torch.rand(1, length) + 0.5
    runs = {
        "convolution": lambda u=u: layer(u),
        "scan": lambda u=u, gaps=gaps: layer(u, gaps),
        "attention": lambda u=u: attend(u),
        "steps": lambda u=u: fold(layer, u),
    }
    for name, run in runs.items():
        if name == "steps" and length > 1024:
            continue
        with torch.no_grad():
            run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, values in seconds.items():
    axis.loglog(lengths[: len(values)], values, "o-", label=name)
axis.set(xlabel="samples", ylabel="seconds, forward")
axis.legend()
plt.show()
for name in ("convolution", "scan", "attention"):
    print(f"{name}: {seconds[name][-1] / seconds[name][-2]:.1f} times the seconds for 4 times the samples")
