"""
A classifier that keeps up with a stream
========================================

Someone rests, walks or runs, and a sensor on the wrist reports when it can, about ten times a second. A classifier
learns from whole records with a label at every sample; it is saved, loaded where the stream arrives, and fed sample by
sample. Its memory is a state of fixed size, so the thousandth sample costs what the first one did, and each answer is
the one that the whole record would have got.
"""

# %%
# Simulated records: bouts of 4 to 10 seconds, accelerations that swing with the stride, and noise. Walking and running
# differ in nothing but their rhythm, which the samples show only together with their times.
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

import statespace
from statespace import MambaClassifier

STATES = np.array(["rest", "walk", "run"])
STRIDES_PER_SECOND = np.array([0.0, 1.2, 2.6])


def wear(n_series, n_times, rng):
    """Times, two channels of acceleration and the state at every sample."""
    times = np.cumsum(rng.gamma(2.0, 0.05, size=(n_series, n_times)), axis=1)
    ends = np.cumsum(rng.uniform(4.0, 10.0, size=(n_series, int(times.max() / 4) + 1)), axis=1)
    # From any state to one of the two others.
    bouts = (rng.integers(3, size=(n_series, 1)) + np.cumsum(rng.integers(1, 3, size=ends.shape), axis=1)) % 3
    state = np.stack([bout[np.searchsorted(end, t)] for bout, end, t in zip(bouts, ends, times, strict=True)])
    pace = STRIDES_PER_SECOND[state] * rng.uniform(0.85, 1.15, size=(n_series, 1))
    phase = 2 * np.pi * np.cumsum(pace * np.diff(times, axis=1, prepend=0.0), axis=1)
    swing = (state > 0)[..., None] * np.stack([np.sin(phase), np.cos(2 * phase)], axis=2)
    return times, swing + 0.3 * rng.normal(size=swing.shape), STATES[state]


rng = np.random.default_rng(0)
times, X, y = wear(200, 200, rng)
clf = MambaClassifier(d_model=16, n_layers=2, dropout=0.0, batch_size=16, max_epochs=15, random_state=0)
clf.fit(X, y, times=times)

# %%
# One new record, twenty-four times as long as those in training.
t, x, truth = (rows[0] for rows in wear(1, 4800, rng))

# %%
# The file holds weights and JSON; loading it runs no code from it.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "wrist.safetensors"
    clf.save(path)
    print(f"{path.stat().st_size / 1024:.0f} KiB")
    deployed = statespace.load(path)

# %%
# Each sample comes with the time since the one before; what leads to the first is ignored.
stream = deployed.stream()
answers, seconds = [], []
for x_t, dt in zip(x, np.diff(t, prepend=0.0), strict=True):
    start = time.perf_counter()
    answers.append(stream.step(x_t, dt=dt))
    seconds.append(time.perf_counter() - start)
answers, seconds = np.array(answers), np.array(seconds)

whole = clf.predict_proba(x[None], times=t[None])[0]
print(f"largest difference between the stream and predict_proba: {np.abs(answers - whole).max():.1e}")
wrong = deployed.classes_[answers.argmax(axis=1)] != truth
print(f"right: {1 - wrong.mean():.0%} of {len(t)} samples")

# %%
# The probabilities of the first minute as the stream gave them, under the truth. After a change the new rhythm has to
# be heard before it can be told, so the errors crowd behind the changes.
colours = dict(zip(clf.classes_, ("0.75", "C3", "C0"), strict=True))
shown = t < 60
figure, (band, signal, ax) = plt.subplots(
    3, 1, figsize=(10, 5.5), sharex=True, layout="constrained", height_ratios=[0.3, 1, 2]
)
order = np.searchsorted(clf.classes_, truth[shown])
band.pcolormesh(np.append(t[shown], 60), [0, 1], order[None], cmap=ListedColormap(list(colours.values())))
band.set(yticks=[], ylabel="truth")
signal.plot(t[shown], x[shown, 0], "k.-", markersize=2, linewidth=0.4)
signal.set(ylabel="first channel")
ax.stackplot(t[shown], answers[shown].T, colors=list(colours.values()), labels=list(colours))
ax.set(xlabel="seconds", ylabel="probability", ylim=(0, 1), xlim=(t[0], 60))
ax.legend(loc="lower left")
plt.show()

bouts = np.flatnonzero(np.concatenate([[True], truth[1:] != truth[:-1]]))
since = t - t[bouts[np.searchsorted(bouts, np.arange(len(t)), side="right") - 1]]
print(f"wrong in the first second of a bout: {wrong[since < 1].mean():.0%}, later: {wrong[since >= 1].mean():.0%}")

# %%
# The alternative is to predict the whole record again with every sample. That costs more from the start, and more with
# every sample once the record is long.
counts = [75, 150, 300, 600, 1200, 2400, 4800]
again = []
for n in counts:
    start = time.perf_counter()
    clf.predict_proba(x[None, :n], times=t[None, :n])
    again.append(time.perf_counter() - start)

blocks = 1e3 * np.median(seconds.reshape(-1, 75), axis=1)
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.loglog(counts, 1e3 * np.array(again), "o-", label="predict the record so far")
ax.loglog(np.arange(75, len(t) + 1, 75), blocks, ".-", label="step of the stream, median of 75")
ax.set(xlabel="samples so far", ylabel="milliseconds for a sample")
ax.legend()
plt.show()
print(f"a step takes {blocks[-5:].mean() / blocks[:5].mean():.1f} times as long at the end as at the beginning")
