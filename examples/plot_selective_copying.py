"""
Selective copying
=================

A few symbols lie at random among noise; then markers ask for them, in their order. A fixed linear system weighs a
symbol by how long ago it came, but what counts is how many others came since, however much noise lay between. Mamba
chooses its steps from what it reads, so it can let no time pass at noise. The paper on Mamba begins its experiments
with this task and 4096 steps; here are 24, for a fit that takes seconds.
"""

# %%
# Symbol 0 is noise, the last one the marker. y has the answers at the markers and NaN elsewhere, which carries no loss.
import matplotlib.pyplot as plt
import numpy as np
import torch

from statespace import SSMClassifier
from statespace.datasets import make_selective_copying

length, n_tokens, n_symbols = 24, 3, 8
X, y, _ = make_selective_copying(4000, length, n_tokens, n_symbols, random_state=0)
X_test, y_test, _ = make_selective_copying(300, length, n_tokens, n_symbols, random_state=1)
print("reads:", *X_test[0])
print("says: ", *[f"{answer:.0f}".replace("nan", ".") for answer in y_test[0]])

# %%
# One network with either layer, trained alike. Mamba goes without its short convolution and starts from long steps, so
# that its states have to choose when to forget. (With its defaults it learns the task as well: nothing fades within so
# few samples, its steps hardly differ, and the choice is left to what it writes and reads.) S4D starts from steps that
# suit it.
options = {"mamba": dict(d_conv=1, dt_rank=8, dt_min=0.1, dt_max=1.0), "s4d": dict(dt_min=0.01, dt_max=1.0)}
network = dict(alphabet=n_symbols, d_model=32, n_layers=2, dropout=0.0)
training = dict(max_epochs=7, batch_size=64, learning_rate=1e-2, ssm_learning_rate=1e-2, weight_decay=0.0)
shared = dict(**network, **training, validation_fraction=0.02, patience=None, random_state=0)
fitted = {layer: SSMClassifier(layer, layer_options=options[layer], **shared).fit(X, y) for layer in ("mamba", "s4d")}

# %%
# Right answers, and series in which all answers are right. A guess is one of six symbols. With other seeds Mamba takes
# some epochs more or fewer to find the way.
guess = 1 / (n_symbols - 2)
for layer, clf in fitted.items():
    right = clf.predict(X_test)[:, length:] == y_test[:, length:]
    print(f"{layer}: {right.mean():.0%} of the answers, {right.all(axis=1).mean():.0%} of the series")
print(f"guessing: {guess:.0%} of the answers")

# %%
# And with more noise, or less, than either has been trained with. S4D has learned the places where symbols may be;
# Mamba has learned to pass over noise, and it hardly matters how much there is.
lengths = [8, 12, 24, 48, 96]
scores = {layer: [] for layer in fitted}
for other in lengths:
    X_other, y_other, _ = make_selective_copying(100, other, n_tokens, n_symbols, random_state=2)
    for layer, clf in fitted.items():
        scores[layer].append(clf.score(X_other, y_other))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for colour, (layer, clf) in zip(("C3", "C0"), fitted.items(), strict=True):
    left.plot(clf.history_["loss"], "o-", color=colour, label=f"{layer}, training")
    left.plot(clf.history_["validation_loss"], "--", color=colour, label=f"{layer}, held out")
    right.semilogx(lengths, scores[layer], "o-", color=colour)
left.axhline(-np.log(guess), color="0.6", linewidth=0.8, label="guessing")
left.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
left.legend()
right.axhline(guess, color="0.6", linewidth=0.8)
right.axvline(length, color="0.6", linestyle=":", linewidth=0.8)
right.set(xlabel="steps of noise and data (dotted: as trained)", ylabel="right answers", ylim=(0, 1.03))
right.set_xticks(lengths, lengths)
right.minorticks_off()
plt.show()

# %%
# The steps of Mamba's first layer on one series. In most channels noise takes a small fraction of the time that data
# take: the state stays as it is, and its clock counts symbols. Some channels do the opposite; the median hides them.
model = fitted["mamba"].model_
symbols = torch.from_numpy(X_test)
with torch.no_grad():
    features = model.encoder(torch.nn.functional.one_hot(symbols, n_symbols).float())
    steps = model.blocks[0].mixer.steps(model.blocks[0].norm(features)).median(dim=2).values.numpy()
kinds = {"noise": X_test == 0, "data": (X_test > 0) & (X_test < n_symbols - 1), "marker": X_test == n_symbols - 1}
for kind, own in kinds.items():
    print(f"median step at {kind}: {np.median(steps[own]):.4f}")

figure, ax = plt.subplots(figsize=(10, 3.2), layout="constrained")
for colour, (kind, own) in zip(("0.6", "C3", "C2"), kinds.items(), strict=True):
    ax.bar(np.flatnonzero(own[0]), steps[0][own[0]], color=colour, label=kind)
ax.set(yscale="log", xlabel="series", ylabel="step, median over channels")
ax.set_xticks(range(X_test.shape[1]), X_test[0])
figure.legend(loc="outside upper right", ncols=3)
plt.show()
