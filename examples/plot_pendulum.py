"""
Drop the gaps and lose
======================

A pendulum swings behind noise that comes and goes, and is seen at a random half of the times: the regression task of
the papers on continuous recurrent units (Schirmer et al. 2022) and S5 (Smith et al. 2023). When the image is lost, only
a model that knows how much time has passed can tell where the pendulum is. The same S5 network is trained twice, with
the gaps and without.

``python plot_pendulum.py --paper`` runs a configuration of the papers' size: 2000 series to learn from, four layers, a
convolutional encoder, 100 epochs. That takes half an hour on one core: 2.69 with the gaps, 21.58 without, in the units
below.
"""

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from statespace.datasets import make_pendulum
from statespace.models import ResidualStack
from statespace.training import SeriesBatches, fit

LARGE = "--paper" in sys.argv
SIZE = 24
N_TRAIN, N_TEST, EPOCHS = (2000, 1000, 100) if LARGE else (1200, 300, 20)

train = make_pendulum(N_TRAIN, image_size=SIZE, random_state=0)
test = make_pendulum(N_TEST, image_size=SIZE, random_state=1)

# %%
# One series: what is left of the images, at the times that were kept.
figure, axes = plt.subplots(2, 12, figsize=(11, 2.2), layout="constrained")
for k, axis in enumerate(axes.flat):
    axis.imshow(test.X.values[1][k].reshape(SIZE, SIZE), cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"t = {test.X.times[1][k]:.0f}", fontsize=8)
    axis.axis("off")
plt.show()


# %%
# An encoder for each image, and a stack of S5 layers over time. A layer's state follows x' = Λx + Bu over the gap that
# each sample really has.
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        if LARGE:
            width, layers, system = 30, 4, {"d_state": 16, "n_blocks": 8}
            encoder = [
                *(nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(108, width), nn.ReLU()),
            ]
        else:
            width, layers, system = 32, 2, {"d_state": 32, "n_blocks": 4}
            encoder = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU()]
        self.encoder = nn.Sequential(nn.Unflatten(1, (1, SIZE, SIZE)), *encoder)
        self.stack = ResidualStack(
            width, 2, d_model=width, n_layers=layers, layer="s5", layer_options=system | {"dt_min": 0.02, "dt_max": 0.5}
        )

    def forward(self, images, dt=None):
        features = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.stack(features, dt)[0]


def squared_error(model, batch):
    error = (model(batch["x"], batch.get("dt")) - batch["y"]).square()
    return error.sum(), torch.tensor(error.numel())


def batches(data, with_gaps):
    """Gaps in units of their mean, or none: then every gap counts as 1."""
    mean = np.mean([np.diff(times).mean() for times in data.X.times])
    gaps = [np.diff(times, prepend=times[0] - mean) / mean for times in data.X.times]
    return SeriesBatches(data.X.values, gaps if with_gaps else None, list(data.y))


predictions = {}
for name, with_gaps in (("with its gaps", True), ("with every gap 1", False)):
    torch.manual_seed(0)
    network = Network()
    fit(
        network,
        batches(train, with_gaps),
        squared_error,
        max_epochs=EPOCHS,
        learning_rate=0.012 if LARGE else 0.015,
        ssm_learning_rate=0.003,
        weight_decay=0.0 if LARGE else 0.05,
        generator=torch.Generator().manual_seed(0),
    )
    batch = batches(test, with_gaps).batch(np.arange(N_TEST))
    with torch.no_grad():
        predictions[name] = network(batch["x"], batch.get("dt")).double().numpy()

# %%
# The mean squared error of sine and cosine, times 1000. A constant forecast knows nothing. (S5's paper has 3.41 with
# the gaps and 6.68 without, in its own configuration and on its own pendulum.)
error = {name: 1000 * np.mean((y - test.y) ** 2) for name, y in predictions.items()}
error["constant forecast"] = 1000 * np.mean((train.y.mean((0, 1)) - test.y) ** 2)
for name, value in error.items():
    print(f"{name:20s}{value:10.2f}")
print(f"without the gaps the error is {error['with every gap 1'] / error['with its gaps']:.1f} times larger")

# %%
# Where it goes wrong: in the noise (shaded by how much of the image it hides).
times = test.X.times[1]
figure, axis = plt.subplots(figsize=(9, 3.5), layout="constrained")
axis.pcolormesh(times, [-1.6, 1.6], 1 - np.stack([test.clarity[1]] * 2), cmap="Greys", vmax=2, shading="nearest")
axis.plot(times, test.y[1, :, 0], "k", label="sine of the angle")
for name, y in predictions.items():
    axis.plot(times, y[1, :, 0], ".-", label=name)
axis.set(xlabel="time in steps of the grid", ylim=(-1.2, 1.6))
axis.legend(loc="upper center", ncols=3)
plt.show()
