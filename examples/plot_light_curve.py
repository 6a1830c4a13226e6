"""
The light of a variable star, night by night
============================================

A brightness is measured when the weather allows, each time with another error. A continuous-time autoregressive moving
average is a Gaussian process for such records: its likelihood takes the gaps and the errors as they are and costs O(n),
and its roots say on which time scales the star varies.
"""

# %%
# Six seasons of clear nights, some with two exposures, and nothing while the sun is near. The light is drawn from a
# CARMA(3, 1): a pulse of 21 days that keeps its phase for fifty, and a slow change that is forgotten as fast.
import matplotlib.pyplot as plt
import numpy as np

from statespace import KalmanRegressor
from statespace.kalman import CARMA, LocalLevel

rng = np.random.default_rng(4)
nights = np.concatenate([365.0 * season + rng.choice(200, size=60, replace=False) for season in range(6)])
t = np.sort(np.concatenate([nights, nights[rng.uniform(size=len(nights)) < 0.25] + rng.uniform(0.01, 0.2)]))
roots = np.array([-0.02, -0.02 + 0.3j, -0.02 - 0.3j])
truth = CARMA(ar=np.poly(roots).real[:0:-1], ma=(1.0, 8.0), sigma=0.00068)
light = rng.multivariate_normal(np.zeros(len(t)), truth.autocovariance(t[:, None] - t))
errors = 0.005 + 0.005 * rng.gamma(4.0, size=len(t))
magnitude = 18.3 + light + errors * rng.standard_normal(len(t))

# %%
# The errors are known, one for each exposure. The magnitude around which the light varies is not: a level without
# noise of its own, exactly diffuse at the start.
model = KalmanRegressor(LocalLevel(variance=1e-12, variance_bounds="fixed") + CARMA(order=(3, 1)))
model.fit(t[:, None], magnitude, noise_variance=errors**2)
star = model.process_.components[1]
print(model.params_.to_string(float_format="{:.3g}".format))
for root in star.roots():
    period = f"turns in {2 * np.pi / abs(root.imag):.1f} days and " if abs(root.imag) > 1e-6 else ""
    print(f"{root:.3f}: {period}is forgotten within {-1 / root.real:.0f}")

# %%
# The light between the nights, across the gaps and beyond the end, for two of the seasons; magnitudes grow downwards.
grid = np.arange(t[0] - 20, t[-1] + 150, 0.5)
mean, std = model.predict(grid[:, None], return_std=True)
figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7), layout="constrained")
above.errorbar(t, magnitude, errors, fmt=".", markersize=3, linewidth=0.6, color="0.4", label="exposures")
above.plot(grid, mean, linewidth=1, label="posterior mean")
above.fill_between(grid, mean - 2 * std, mean + 2 * std, alpha=0.3)
above.invert_yaxis()
above.set(xlim=(1430, grid[-1]), xlabel="day", ylabel="magnitude")
above.legend()

# %%
# The power spectrum of what was found beside that of what was drawn, with the pulse as its peak.
frequency = np.geomspace(1e-3, 0.5, 400)
below.loglog(frequency, star.power_spectral_density(frequency), label="fitted")
below.loglog(frequency, truth.power_spectral_density(frequency), "--", color="0.3", label="drawn")
below.axvline(0.3 / (2 * np.pi), linewidth=0.6, color="0.7")
below.set(xlabel="cycles per day", ylabel="power (mag² day)")
below.legend()
plt.show()
