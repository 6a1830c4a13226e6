"""
What moves the carbon dioxide on Mauna Loa
==========================================

A record with gaps is taken apart into trend, season and what passes within days, each with its standard deviation. The
sum of three processes is one linear-Gaussian state-space model, so the likelihood, its gradient and the parts cost
O(n), and the gaps need no filling: between two samples the state simply evolves for as long as it took.
"""

# %%
# Eight whole stretches are left out, and of the other weeks so many that four in ten remain.
import matplotlib.pyplot as plt
import numpy as np

from statespace import KalmanRegressor
from statespace.datasets import load_co2, make_irregular
from statespace.kalman import LocalTrend, Matern, Seasonal

record = load_co2()["co2"]
record = make_irregular(record, keep=0.4, n_gaps=8, gap_length=0.03, random_state=1)
years = 1958 + (record.index - np.datetime64("1958-01-01")).days / 365.25
t = np.asarray(years)

# %%
# Three processes and the noise, six parameters by maximum likelihood. ``params_`` has the estimates with their standard
# errors; a variance that belongs at zero is marked as standing at its bound. Here it is that of the noise: weekly means
# stray for a week at a time, which the Matérn process takes, and then there is nothing left to call noise.
model = KalmanRegressor(LocalTrend() + Seasonal(period=1.0, harmonics=3) + Matern(nu=1.5))
model.fit(t[:, None], record)
print(model.params_.to_string(float_format="{:.3g}".format))

# %%
# The parts on a fine grid, across the gaps and five years beyond the end.
grid = np.arange(t[0], t[-1] + 5, 1 / 52)
parts = model.decompose(grid[:, None])
names = [name for name in parts.columns if not name.endswith("_std")]

figure, axes = plt.subplots(len(names) + 1, 1, figsize=(8, 2 * len(names) + 2), sharex=True, layout="constrained")
mean, std = model.predict(grid[:, None], return_std=True)
axes[0].plot(t, record, ".", markersize=2, color="0.4", label="samples")
axes[0].plot(grid, mean, linewidth=1, label="posterior mean")
axes[0].fill_between(grid, mean - 2 * std, mean + 2 * std, alpha=0.3)
axes[0].set_ylabel("CO₂ (ppm)")
axes[0].legend()
for axis, name in zip(axes[1:], names, strict=True):
    axis.plot(grid, parts[name], linewidth=1)
    axis.fill_between(grid, parts[name] - 2 * parts[f"{name}_std"], parts[name] + 2 * parts[f"{name}_std"], alpha=0.3)
    axis.set_ylabel(name)
axes[-1].set_xlabel("year")
plt.show()
