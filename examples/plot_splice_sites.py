"""
DNA splice sites, from a FASTA file to a saved model
====================================================

Where a gene's coding stretches (exons) end, an intron begins, and is cut out later. The cell finds these places by
short patterns around them, and so can a model that reads the letters. Sequences come from a FASTA file and go into
``fit`` as they are, unknown letters too.

With the environment variable ``STATESPACE_DATA`` set, the sequences are those of UCI's primate splice-junction set;
without it they are made up, from the known consensus of donor and acceptor sites.
"""

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import CategoricalNB

import statespace
from statespace import MambaClassifier
from statespace.datasets import read_fasta

JUNCTION, LENGTH = 30, 60
rng = np.random.default_rng(0)


def letters(n, shares=(0.25, 0.25, 0.25, 0.25)):
    return rng.choice(list("ACGT"), n, p=shares)


def made_up(label):
    """60 bases around position 30: a donor (EI: exon, then intron), an acceptor (IE), or neither (N)."""
    bases = letters(LENGTH)
    if label == "EI":  # (A|C) A G | G T (A|G) A G T, of which only G T is always there
        site = [*rng.choice(["AAG", "CAG"]), "G", "T", *rng.choice(["AAGT", "GAGT"])]
        kept = rng.random(9) < [0.7, 0.6, 0.8, 1, 1, 0.95, 0.7, 0.8, 0.5]
        bases[JUNCTION - 3 : JUNCTION + 6] = np.where(kept, site, bases[JUNCTION - 3 : JUNCTION + 6])
    elif label == "IE":  # a stretch of C and T, somewhere before (C|T) A G |
        end, n = JUNCTION - rng.integers(4, 9), rng.integers(9, 16)
        bases[end - n : end] = letters(n, (0.06, 0.42, 0.06, 0.46))
        bases[JUNCTION - 3 : JUNCTION] = [rng.choice(["C", "T"]), "A", "G"]
    elif rng.random() < 0.5:  # the two letters that every donor, or every acceptor, has, and no site
        place, pair = (JUNCTION, "GT") if rng.random() < 0.5 else (JUNCTION - 2, "AG")
        bases[place : place + 2] = list(pair)
    bases[rng.random(LENGTH) < 0.001] = "N"
    return "".join(bases)


def write_fasta(path):
    """One record a window, its class in the header."""
    source = Path(os.environ.get("STATESPACE_DATA", "")) / "dna_uci_splice" / "splice.data"
    if source.is_file():
        table = pd.read_csv(source, names=["label", "name", "sequence"], skipinitialspace=True)
        rows = zip(table["label"], table["name"], table["sequence"].str.strip(), strict=True)
    else:
        labels = rng.choice(["EI", "IE", "N"], 2400, p=[0.25, 0.25, 0.5])
        rows = ((label, f"window{i}", made_up(label)) for i, label in enumerate(labels))
    path.write_text("".join(f">{name} class={label}\n{sequence}\n" for label, name, sequence in rows))


folder = tempfile.TemporaryDirectory()
write_fasta(Path(folder.name) / "splice.fasta")

# %%
# A FASTA file becomes a DataFrame under the records' names. Some windows of the real set are there twice, and must not
# be on both sides of the split.
records = read_fasta(Path(folder.name) / "splice.fasta").drop_duplicates("sequence")
labels = records["description"].str.removeprefix("class=").to_numpy()
train, test, y_train, y_test = train_test_split(records["sequence"], labels, random_state=0, stratify=labels)
print(records.head(3))
print(len(train), "to train,", len(test), "to test;", pd.Series(labels).value_counts().to_dict())

# %%
# The question is what happens at one base, the one after the junction. So that base has the label, and the others have
# none: a model that reads both ways answers at every base, from what stands to its left and to its right.


def at_junction(labels):
    y = np.full((len(labels), LENGTH), None, dtype=object)
    y[:, JUNCTION] = labels
    return y


clf = MambaClassifier(
    alphabet="dna", bidirectional=True, d_model=32, n_layers=1, d_state=8, dropout=0.3, learning_rate=1e-2,
    max_epochs=8, random_state=0,
)  # fmt: skip
clf.fit(train, at_junction(y_train))
predicted = clf.predict(test)[:, JUNCTION]

# %%
# Naive Bayes, which takes every base of the window by its place and by itself, is hard to beat here; the made-up sites
# are nearly what it assumes.
known = {letter: i for i, letter in enumerate("ACGT")}
codes = [np.array([[known.get(letter, 4) for letter in x] for x in part]) for part in (train, test)]
bayes = CategoricalNB(min_categories=5).fit(codes[0], y_train)
print(f"naive Bayes {bayes.score(codes[1], y_test):.3f}, Mamba both ways {np.mean(predicted == y_test):.3f}")
print(pd.crosstab(pd.Series(y_test, name="true"), pd.Series(predicted, name="predicted")))

# %%
# What it looks at: hide one base after the other behind an N, and see how much the probability of the right class
# falls. Around donors these are the bases of the consensus, before acceptors the stretch of C and T.
figure, axes = plt.subplots(2, 1, figsize=(7, 4), sharex=True, sharey=True, layout="constrained")
for axis, label, title in zip(axes, ("EI", "IE"), ("donor sites", "acceptor sites"), strict=True):
    windows = test[(y_test == label) & (predicted == label)].head(40)
    column = list(clf.classes_).index(label)
    whole = clf.predict_proba(windows)[:, JUNCTION, column]
    hidden = [x[:k] + "N" + x[k + 1 :] for x in windows for k in range(LENGTH)]
    without = clf.predict_proba(hidden)[:, JUNCTION, column].reshape(len(windows), LENGTH)
    axis.bar(np.arange(LENGTH) - JUNCTION + 0.5, (whole[:, None] - without).mean(axis=0), width=0.8)
    axis.axvline(0, color="k", linewidth=0.8)
    axis.set(title=title, ylabel="fall of probability")
axes[1].set_xlabel("bases from the junction")
plt.show()

# %%
# The fitted model is one file, of numbers only. It reads sequences of any length: here a test window within a longer
# stretch of random bases, where the site is found again.
clf.save(Path(folder.name) / "splice_sites")
again = statespace.load(Path(folder.name) / "splice_sites")
folder.cleanup()
i = int(np.flatnonzero((y_test == "EI") & (predicted == "EI"))[0])
gene = "".join(letters(100)) + test.iloc[i] + "".join(letters(100))
donor = again.predict_proba([gene])[0][:, list(again.classes_).index("EI")]
print("most probable donor at", int(donor.argmax()), "- the true one is at", 100 + JUNCTION)
