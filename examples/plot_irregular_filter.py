"""
Filtering a sensor that sleeps
==============================

A sensor wakes when something happens: seconds apart in a burst, minutes or hours apart otherwise, and now and then its
link is down. A digital filter wants a grid. An analog filter does not: between two samples it is a differential
equation, which is solved over the gap that there really was.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.signal

from statespace.lti import LTIFilter

rng = np.random.default_rng(4)
hours = []
clock = 0.0
while clock < 72.0:
    burst = rng.random() < 0.1
    hours.append(clock + np.cumsum(rng.exponential(0.01 if burst else 0.12, size=60 if burst else 20)))
    clock = hours[-1][-1]
hours = np.concatenate(hours)
hours = hours[(hours < 30.0) | (hours > 37.0)]  # the link was down


def level(hours):
    return 15.0 + 4.0 * np.sin(2 * np.pi * hours / 24.0) + 0.8 * np.sin(2 * np.pi * hours / 7.0)


def disturbed(hours):
    """A pump that runs every half hour, and noise."""
    return level(hours) + 0.7 * np.sin(2 * np.pi * hours / 0.5) + 0.2 * rng.standard_normal(len(hours))


sensor = pd.Series(disturbed(hours), index=pd.Timestamp("2024-05-01") + pd.to_timedelta(hours, unit="h"), name="°C")
gaps = sensor.index.to_series().diff().dropna()
print(f"{len(sensor)} samples, gaps from {gaps.min()} to {gaps.max()}, median {gaps.median()}")

# %%
# The cutoff is a frequency in physical time, here one cycle in three hours, whatever the sampling. A list of series
# goes in and a list of series comes out.
low_pass = LTIFilter("butterworth", order=4, cutoff=1 / 3, time_unit="h").fit([sensor])
both_ways = LTIFilter("butterworth", order=2, cutoff=1 / 3, zero_phase=True, time_unit="h").fit([sensor])
(causal,) = low_pass.transform([sensor])
(smooth,) = both_ways.transform([sensor])

# %%
# What is often done instead: interpolate onto a grid, filter there, and read the grid at the samples. The grid has to
# follow the bursts, and so it fills the quiet hours and the outage with points that nobody measured.
step = gaps.median() / pd.Timedelta("1h")
grid = np.arange(hours[0], hours[-1], step)
sections = scipy.signal.butter(2, 1 / 3, fs=1 / step, output="sos")
filled = scipy.signal.sosfiltfilt(sections, np.interp(grid, hours, sensor))
coarse = np.arange(hours[0], hours[-1], 0.5)
sections = scipy.signal.butter(2, 1 / 3, fs=2.0, output="sos")
thinned = scipy.signal.sosfiltfilt(sections, np.interp(coarse, hours, sensor))

figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
axis.plot(hours, sensor, ".", color="0.8", markersize=3, label="samples")
axis.plot(hours, level(hours), "k", linewidth=1, label="level without the pump")
axis.plot(hours, causal, label="causal")
axis.plot(hours, smooth, label="zero phase")
axis.plot(coarse, thinned, "--", label="grid of half an hour, sosfiltfilt")
axis.set(xlabel="hours", ylabel="°C", xlim=(0, 72), ylim=(6, 21))
axis.legend(loc="lower left", ncols=3)
plt.show()

# %%
# Within the measured times, against the level that the pump and the noise hide. The half-hour grid turns the pump into
# a slow error: it samples it once a period. A grid as fine as the bursts does not, and needs more points than samples.
measured = (hours > 6) & (hours < 66) & ((hours < 28) | (hours > 39))
errors = {
    "zero phase": smooth.to_numpy() - level(hours),
    f"grid of the median gap ({len(grid)} points)": np.interp(hours, grid, filled) - level(hours),
    f"grid of half an hour ({len(coarse)} points)": np.interp(hours, coarse, thinned) - level(hours),
}
for name, error in errors.items():
    print(f"{name:38s} root mean square error {np.sqrt(np.mean(error[measured] ** 2)):.3f} °C")

# %%
# What the filter does at each frequency is known before it sees a sample. On a stream it gives the same numbers, one
# sample and its gap at a time.
frequency = np.geomspace(0.01, 5.0, 300)
figure, axis = plt.subplots(figsize=(9, 3), layout="constrained")
axis.loglog(frequency, np.abs(low_pass.frequency_response(frequency)), label="causal, order 4")
axis.loglog(frequency, both_ways.frequency_response(frequency), label="zero phase, order 2 both ways")
axis.axvline(2.0, color="0.7")
axis.annotate("pump", (2.0, 0.5), xytext=(4, 0), textcoords="offset points")
axis.set(xlabel="cycles an hour", ylabel="gain", ylim=(1e-5, 2))
axis.legend(loc="lower left")
plt.show()

stream = low_pass.stream()
running = [stream.step(value, gap) for value, gap in zip(sensor, np.diff(hours, prepend=hours[0]), strict=True)]
print(f"largest difference between stream and record: {np.abs(running - causal).max():.1e}")
