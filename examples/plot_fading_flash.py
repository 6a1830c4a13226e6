"""
Rates that hold on any clock
============================

Flashes light a glow that fades, at a rate that the input names. What learns it on gaps between 0.5 and 1.5 should know
it at a gap of 4: the rates are the same. S5 has the gap but one rate for all inputs. Mamba's input chooses how fast
time passes, and a gap multiplies that: right for what fades, and wrong for what is written, which its Euler rule lets
grow with the gap. TIDES lets the input choose rates, and holds its input over the gap.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from statespace.datasets import make_fading_flash
from statespace.layers import S5, TIDES, Mamba

WIDTH, STEPS = 8, dict(dt_min=0.1, dt_max=1.0)


def tensors(X, y):
    """Inputs, gaps and targets; the first gap, which is not in the record, as the next one."""
    gaps = np.diff(np.stack(X.times))
    gaps = np.column_stack([gaps[:, 0], gaps])
    return tuple(torch.tensor(a, dtype=torch.float32) for a in (np.stack(X.values), gaps, y))


class Glow(torch.nn.Module):
    """One layer between two linear maps."""

    def __init__(self, layer):
        super().__init__()
        self.encoder, self.layer = torch.nn.Linear(4, WIDTH), layer
        self.head = torch.nn.Linear(WIDTH, 1)

    def forward(self, x, gaps):
        return self.head(self.layer(self.encoder(x), gaps)[0]).squeeze(-1)


def fit(layer, n_steps=400):
    x, gaps, y = tensors(*make_fading_flash(32 * 50, random_state=0))
    model = Glow(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, n_steps)
    for step in range(n_steps):
        batch = slice(32 * (step % 50), 32 * (step % 50) + 32)
        optimizer.zero_grad()
        (model(x[batch], gaps[batch]) - y[batch]).square().mean().backward()
        optimizer.step()
        schedule.step()
    return model


torch.manual_seed(0)
models = {
    "S5": fit(S5(WIDTH, 16, **STEPS)),
    "Mamba": fit(Mamba(WIDTH, 8, expand=1, d_conv=1, **STEPS)),
    "TIDES": fit(TIDES(WIDTH, 8, rank=0, normalize=False, **STEPS)),
}

# %%
# Root mean square errors at gaps inside the shaded range, where they learned, and outside.
tests = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0])
errors = {name: [] for name in models}
with torch.no_grad():
    for gap in tests:
        x, gaps, y = tensors(*make_fading_flash(100, gap=gap, random_state=1))
        for name, model in models.items():
            errors[name].append((model(x, gaps) - y).square().mean().sqrt().item())
for name, values in errors.items():
    print(f"{name:6s}", "  ".join(f"{gap}: {error:.3f}" for gap, error in zip(tests, values, strict=True)))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.axvspan(0.5, 1.5, color="0.9")
for name, values in errors.items():
    left.loglog(tests, values, marker="o", label=name)
left.set(xlabel="gap", ylabel="root mean square error")
left.legend()
X, y = make_fading_flash(1, gap=3.0, random_state=3)
with torch.no_grad():
    for name, model in models.items():
        right.plot(X.times[0], model(*tensors(X, y)[:2])[0], label=name)
right.plot(X.times[0], y[0], "k.", label="glow")
right.set(xlabel="time", title="a record of gap 3")
right.legend()
plt.show()
