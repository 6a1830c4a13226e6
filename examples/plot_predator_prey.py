"""
What the gaps are worth
=======================

Predators and prey follow a nonlinear system. A record shows one of them at a time, with noise, at random times, and the
question is where both will be some time after the last sample. Any layer can be asked: the question is one more sample,
of which nothing is seen, at the time that is meant. Here each reads the records with their times, and once more as if
all samples were equally far apart.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from statespace import SSMRegressor
from statespace.datasets import make_predator_prey

train, y = make_predator_prey(400, n_times=30, random_state=0)
test, answers = make_predator_prey(200, n_times=30, random_state=1)

# %%
# One record: what is seen, and the question.
fig, axis = plt.subplots(figsize=(8, 3))
values, times = test.values[0], test.times[0]
for channel, name in enumerate(("prey", "predators")):
    seen = ~np.isnan(values[:, channel])
    axis.plot(times[seen], values[seen, channel], "o", color=f"C{channel}", label=f"log {name}")
    axis.plot(times[-1], answers[0, channel], "*", markersize=12, color=f"C{channel}")
axis.axvline(times[-1], color="0.8", zorder=0)
axis.set(xlabel="time", title="What will both be at the stars' time?")
axis.legend()
fig.tight_layout()

# %%
# Three layers that use the gap in three ways: S5 decays by it, Mamba multiplies the step that it chooses by it, and
# TIDES chooses rates of decay and leaves the gap alone. All have the same width and depth, and ten epochs.
options = {"d_model": 32, "n_layers": 2, "pooling": "last", "dropout": 0.0, "max_epochs": 10, "random_state": 0}
layers = ("s5", "mamba", "tides")
errors = np.empty((len(layers), 2))
for i, layer in enumerate(layers):
    for j, (X, X_test) in enumerate(((train, test), (train.values, test.values))):
        prediction = SSMRegressor(layer, **options).fit(X, y).predict(X_test)
        errors[i, j] = np.sqrt(np.mean((prediction - answers) ** 2))
constant = np.sqrt(np.mean((y.mean(0) - answers) ** 2))
print(f"{'':10s}{'with gaps':>12s}{'without':>10s}")
for layer, row in zip(layers, errors, strict=True):
    print(f"{layer:10s}{row[0]:12.3f}{row[1]:10.3f}")
print(f"{'constant':10s}{constant:12.3f}")

# %%
# Without the times the question itself is lost: a layer does not know how far ahead it is asked.
fig, axis = plt.subplots(figsize=(6, 3))
places = np.arange(len(layers))
axis.bar(places - 0.2, errors[:, 0], 0.4, label="with gaps")
axis.bar(places + 0.2, errors[:, 1], 0.4, label="without")
axis.axhline(constant, color="0.5", linestyle="--", label="constant")
axis.set(xticks=places, xticklabels=layers, ylabel="root mean square error")
axis.legend()
fig.tight_layout()
