"""
What selection does
===================

A stream of letters: small ones are noise, capital ones are data, and at every step the last data letter is asked for.
A fixed linear system can give noise no weight, but it forgets at rates of its own: a letter wears away while it is
still asked for, and lingers when the next one has come. Mamba chooses its step from the letter: a short one at noise,
which leaves the state as it is, and a long one at data, which wipes it out and writes.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from statespace.layers import S4D, Mamba

NOISE, DATA = "abcdefgh", "ABCD"
LETTERS = NOISE + DATA


def letters(n_series, length, rng):
    """Streams of letters, one in ten of them data; and the last data letter at each step, the first being one."""
    is_data = rng.random((n_series, length)) < 0.1
    is_data[:, 0] = True
    tokens = np.where(
        is_data,
        rng.integers(len(NOISE), len(LETTERS), (n_series, length)),
        rng.integers(0, len(NOISE), (n_series, length)),
    )
    last = np.maximum.accumulate(np.where(is_data, np.arange(length), 0), axis=1)
    return torch.from_numpy(tokens), torch.from_numpy(np.take_along_axis(tokens, last, axis=1) - len(NOISE))


class Reader(torch.nn.Module):
    """An embedding, one layer, and a read-out at every step."""

    def __init__(self, layer):
        super().__init__()
        self.embedding = torch.nn.Embedding(len(LETTERS), layer.d_model)
        self.layer = layer
        self.head = torch.nn.Linear(layer.d_model, len(DATA))

    def forward(self, tokens):
        return self.head(torch.nn.functional.gelu(self.layer(self.embedding(tokens))[0]))


def fit(layer, n_steps=200):
    rng = np.random.default_rng(0)
    model = Reader(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(n_steps):
        tokens, answers = letters(16, 64, rng)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), answers.flatten()).backward()
        optimizer.step()
    return model


# Without the short convolution (``d_conv=1``), so that letters meet in the state alone.
torch.manual_seed(0)
steps = dict(dt_min=1e-2, dt_max=1.0)
models = {"Mamba": fit(Mamba(16, d_state=2, d_conv=1, dt_rank=4, **steps)), "S4D": fit(S4D(16, d_state=32, **steps))}

# %%
# Both are asked on streams four times as long as those that they learned from.
tokens, answers = letters(50, 256, np.random.default_rng(1))
for name, model in models.items():
    with torch.no_grad():
        correct = (model(tokens).argmax(-1) == answers).double().mean()
    print(f"{name}: {correct:.1%} right; guessing: {1 / len(DATA):.0%}")

# %%
# The steps that Mamba chose on the beginning of one stream, a row for each inner channel. Where a step is large the
# state decays and is written to: where a data letter comes. At noise it is small in every channel that remembers.
mamba = models["Mamba"]
n = 48
with torch.no_grad():
    steps = mamba.layer.steps(mamba.embedding(tokens[:1]))[0, :n].numpy()
letter = tokens[0, :n].numpy()
order = np.argsort(steps[letter >= len(NOISE)].mean(axis=0))

figure, (above, below) = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained", height_ratios=[2, 1])
image = above.imshow(np.log10(steps[:, order].T), aspect="auto", cmap="viridis", origin="lower")
figure.colorbar(image, ax=above, label="log₁₀ step")
above.set(ylabel="inner channel", title="how much time passes for the state of each channel")
for is_data, colour, label in ((True, "C3", "data"), (False, "0.6", "noise")):
    own = np.flatnonzero((letter >= len(NOISE)) == is_data)
    below.bar(own, steps[own].mean(axis=1), color=colour, label=label)
below.set(ylabel="mean step", xlabel="stream")
below.set_xticks(range(n), [LETTERS[i] for i in letter])
below.legend()
plt.show()

# %%
# The step multiplies the gap between two samples, here 1. On a clock that pauses for ten units, the state loses what it
# would have lost in ten units of the letter that follows, and the choice itself stays as it was.
gaps = torch.ones(1, n)
gaps[0, 20] = 10.0
with torch.no_grad():
    paused = mamba.layer.steps(mamba.embedding(tokens[:1, :n]), gaps)[0].numpy()
print(f"step 20 over a gap of 10: {(paused[20] / steps[20]).mean():.1f} times what it was")
