"""
What HiPPO remembers
====================

HiPPO compresses the past of a signal into a few coefficients, while samples come in at irregular times: the state of a
linear system, kept so that it is the best approximation of the past at every moment. What "the past" is, the measure
says: everything in equal weight, a sliding window, or a memory that fades.
"""

# %%
# A signal at 4000 irregular times, with a long gap in it, and four memories of 64 numbers each.
import matplotlib.pyplot as plt
import numpy as np

from statespace import HiPPOMemory

rng = np.random.default_rng(0)
gaps = rng.exponential(1.0, size=4000)
gaps[2500] = 400.0
times = np.cumsum(gaps)
end = times[-1]


def signal(t):
    return np.sin(2 * np.pi * (t / 1000) ** 1.3) + 0.5 * np.sin(2 * np.pi * t / 320)


memories = {
    "legs: everything": HiPPOMemory("legs", 64, hold="foh"),
    "legt: the last 1500": HiPPOMemory("legt", 64, window=1500.0, hold="foh"),
    "fourier: the last 1500": HiPPOMemory("fourier", 65, window=1500.0, hold="foh"),
    "lagt: fading": HiPPOMemory("lagt", 64, window=150.0, hold="foh"),
}
for memory in memories.values():
    memory.extend(signal(times), gaps)

# %%
# Each rebuilds its past from its coefficients alone. The polynomial of *legs* spreads its 64 numbers over the whole
# record, and over the gap it follows the line between the samples. *legt* and *fourier* spend theirs on the window; the
# Fourier series has to join the window's two ends. *lagt* knows the present best: its errors may grow as fast as its
# weights decay.
figure, axes = plt.subplots(4, 1, figsize=(8, 8), sharex=True, layout="constrained")
for axis, (name, memory) in zip(axes, memories.items(), strict=True):
    beginning = {"legs": 0.0, "lagt": end - 1000.0}.get(memory.measure, end - 1500.0)
    past = np.linspace(beginning, end, 2000)
    rebuilt = memory.reconstruct(past)
    axis.plot(times, signal(times), ".", color="0.8", markersize=2)
    axis.plot(past, rebuilt)
    axis.set(ylim=(-2, 2), title=name)
    error = np.sqrt(np.mean((rebuilt - np.interp(past, times, signal(times))) ** 2))
    print(f"{name}: RMSE {error:.3f} over {end - beginning:.0f} units of time")
axes[-1].set_xlabel("time")

# %%
# How much there is to remember sets how many coefficients it takes: the error of *legs* over the whole record falls
# fast once the polynomial's degree reaches the signal's oscillations.
counts = [8, 16, 32, 64, 128]
errors = []
for n in counts:
    memory = HiPPOMemory("legs", n, hold="foh").extend(signal(times), gaps)
    past = np.linspace(0, end, 2000)
    errors.append(np.sqrt(np.mean((memory.reconstruct(past) - np.interp(past, times, signal(times))) ** 2)))
    print(f"{n} coefficients: RMSE {errors[-1]:.4f}")
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.loglog(counts, errors, "o-")
axis.set(xlabel="coefficients", ylabel="RMSE of the past")
plt.show()
