"""
A hybrid: a state that sums up, and attention that looks up
===========================================================

Eight sensors report on one line, each when it likes, and some readings are lost on the way. The best guess for a lost
reading is what the same sensor said before. A state-space layer meets all readings in one state of fixed size;
attention keeps them and looks up those of the sensor in question. A pattern of layers puts both into one network.
"""

# %%
# In each record every sensor has a level of its own, unknown beforehand. A sample says which sensor reports, and its
# reading, NaN where that was lost. Only the lost readings are targets: NaN in y carries no loss.
import matplotlib.pyplot as plt
import numpy as np

from statespace import SSMRegressor

rng = np.random.default_rng(0)
n_series, n_times, n_sensors = 400, 64, 8
times = np.cumsum(rng.exponential(size=(n_series, n_times)), axis=1)
sensor = rng.integers(n_sensors, size=(n_series, n_times))
level = rng.normal(size=(n_series, n_sensors))
reading = np.take_along_axis(level, sensor, axis=1) + 0.05 * rng.normal(size=(n_series, n_times))
lost = rng.uniform(size=(n_series, n_times)) < 0.3
X = np.concatenate([np.eye(n_sensors)[sensor], np.where(lost, np.nan, reading)[..., None]], axis=2)
y = np.where(lost, reading, np.nan)
train, test = slice(300), slice(300, None)

# %%
# Two blocks of Mamba, and one of Mamba and one of attention. Behind each comes a feed-forward map, the second of which
# is a mixture of four experts, as in Jamba. Ten epochs of three hundred records are few for a state that would have to
# learn to keep eight levels apart.
shared = {"d_model": 32, "n_layers": 2, "dropout": 0.0, "batch_size": 16, "max_epochs": 10, "random_state": 0}
models = {
    "Mamba": SSMRegressor("mamba", moe=4, **shared),
    "Mamba and attention": SSMRegressor(["mamba", "attention"], moe=4, **shared),
}
scores = {}
for name, model in models.items():
    model.fit(X[train], y[train], times=times[train])
    scores[name] = model.score(X[test], y[test], times=times[test])

# %%
# What can be known: the mean of the sensor's readings so far. The first reading of a sensor is anyone's guess.
seen = np.where(lost[..., None], 0, np.eye(n_sensors)[sensor])
total = np.cumsum(seen * reading[..., None], axis=1)
count = np.cumsum(seen, axis=1)
mean = np.take_along_axis(total / np.maximum(count, 1), sensor[..., None], axis=2)[..., 0]
truth = reading[test][lost[test]]
scores["mean of the sensor so far"] = 1 - np.mean((truth - mean[test][lost[test]]) ** 2) / np.var(truth)
for name, score in scores.items():
    print(f"R² of the lost readings, {name}: {score:.2f}")

# %%
# One state for streaming holds Mamba's registers and states and attention's keys and values. Fed sample by sample the
# hybrid says what it says of the whole record.
hybrid = models["Mamba and attention"]
predicted = hybrid.predict(X[test], times=times[test])
stream = hybrid.stream()
answers = [stream.step(x, gap) for x, gap in zip(X[300], np.diff(times[300], prepend=0.0), strict=True)]
print(f"the largest difference between stream and predict: {np.abs(np.array(answers) - predicted[0]).max():.1e}")

# %%
# The lost readings of the held-out records, as both networks guess them.
figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), sharex=True, sharey=True, layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    guess = model.predict(X[test], times=times[test])[lost[test]]
    ax.plot(truth, guess, ".", markersize=2)
    ax.axline((0, 0), slope=1, color="0.5", linewidth=0.8)
    ax.set(title=f"{name}: R² = {scores[name]:.2f}", xlabel="lost reading")
axes[0].set_ylabel("guess")
plt.show()
