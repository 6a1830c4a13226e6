"""
Looking inside a network
========================

A sensor is read at irregular times, and now and then a flag is raised: what is asked for, at every step, is what the
sensor said at the last flag. What has a network learned that knows it? Four views: what it is made of, what its layer
chooses, which samples an answer rests on, and, where a layer is a fixed linear system, what that system remembers.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from statespace import MambaRegressor, S4DRegressor
from statespace.plotting import (
    AttributionDisplay,
    ImpulseResponseDisplay,
    PolesDisplay,
    SelectionDisplay,
    TrainingDisplay,
)


def flagged(n_series, n_times, seed):
    """Readings and flags (n_series, n_times, 2), their times, and the reading at the last flag."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.2, 1.8, size=(n_series, n_times)), axis=1)
    readings, flags = rng.normal(size=(n_series, n_times)), rng.random((n_series, n_times)) < 0.15
    flags[:, 0] = True
    last = np.maximum.accumulate(np.where(flags, np.arange(n_times), 0), axis=1)
    return np.stack([readings, flags], axis=-1), times, np.take_along_axis(readings, last, axis=1)


X, times, y = flagged(200, 40, seed=0)
X_test, times_test, y_test = flagged(50, 40, seed=1)
options = dict(d_model=16, n_layers=1, dropout=0.0, dt_min=1e-2, dt_max=1.0)
training = dict(learning_rate=0.02, ssm_learning_rate=0.02, batch_size=16, max_epochs=15, random_state=0)
# Without the short convolution (``d_conv=1``), so that samples meet in the state alone.
selective = MambaRegressor(d_state=8, d_conv=1, **options, **training).fit(X, y, times=times)
fixed = S4DRegressor(d_state=16, **options, **training).fit(X, y, times=times)
for name, model in (("Mamba", selective), ("S4D", fixed)):
    print(f"{name}: R² {model.score(X_test, y_test, times=times_test):.2f} on new series")

# %%
# **What it is made of.** Parameters, the numbers that a stream carries from sample to sample, and operations a sample:
# 2 for a multiply-add.
print(selective.summary())

# %%
# The training curves of both. A fixed system gives a sample the weight of its age, whatever the flag says.
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, name, model in zip(axes, ("Mamba", "S4D"), (selective, fixed), strict=True):
    TrainingDisplay.from_estimator(model, ax=ax, log_scale=True)
    ax.set_title(name)
plt.show()

# %%
# **What the layer chooses.** In some channels a flag makes the step a thousand times longer than it is elsewhere: their
# state is wiped out and written anew, and kept until the next flag. Others do the reverse.
series = 3
display = SelectionDisplay.from_estimator(selective, X_test, times=times_test, series=series, names=["step", "kept"])
for ax in display.axes_:
    for when in times_test[series, X_test[series, :, 1] == 1]:
        ax.axvline(when, color="C3", linestyle="--")
plt.show()

# %%
# **Which samples an answer rests on.** Integrated gradients run from a record that says nothing to the series at hand,
# and what they give to the samples adds up to the answer. Here that record has the same flags and no readings. The
# answer of the last step rests on the reading at the last flag.
display = AttributionDisplay.from_estimator(
    selective, X_test, times=times_test, series=series, baseline=X_test * [0.0, 1.0]
)
for ax, name in zip(display.axes_, ("reading", "flag"), strict=True):
    ax.set_ylabel(name)
plt.show()
total = display.attribution.to_numpy().sum()
print(f"answer {display.answer:.4f}, less the baseline's {display.answer - display.baseline:.4f}; samples {total:.4f}")

# %%
# **What a fixed system remembers.** The impulse response of three channels of an S4D layer, in the unit of the times;
# the weights that they give to samples one typical gap apart; and their poles. It is the same object that control
# engineers know: `statespace.inspection.linear_system` gives it as a `statespace.lti.LinearSystem`.
ImpulseResponseDisplay.from_estimator(fixed, channels=[0, 1, 2], length=60)
plt.show()

# %%
PolesDisplay.from_estimator(fixed, channels=[0, 1, 2])
plt.show()
