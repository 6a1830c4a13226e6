"""
Tracking a target that turns
============================

A radar sees a target at irregular times, as a range and a bearing; now one of the two is lost, now both for a while.
The target flies straight, turns, and flies straight again. One unscented filter with a noise that suits the turns is
too nervous for the straights; two filters, one for each manner of flight, share the work by their probabilities.
"""

# %%
# The target's path: legs with a constant rate of turn. Times are irregular, with ten silent seconds in the second turn.
import matplotlib.pyplot as plt
import numpy as np

from statespace.kalman.nonlinear import (
    FixedLagSmoother,
    InteractingMultipleModel,
    NonlinearModel,
    UnscentedKalmanFilter,
)

rng = np.random.default_rng(2)
times = np.cumsum(rng.exponential(0.5, size=400))
times = times[(times < 200) & ~((times > 132) & (times < 142))]


def turning(t):
    """The rate of turn in radians a second."""
    return np.select([(t > 50) & (t < 75), (t > 125) & (t < 150)], [0.1, -0.13], 0.0)


fine = np.linspace(0.0, times[-1], 20_001)
heading = 0.4 + np.concatenate([[0.0], np.cumsum(turning(fine[1:]) * np.diff(fine))])
velocity = 15.0 * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
steps = np.concatenate([[[-900.0, -500.0]], velocity[1:] * np.diff(fine)[:, None]])
path = np.cumsum(steps, axis=0)
truth = np.stack([np.interp(times, fine, path[:, i]) for i in range(2)], axis=-1)

# %%
# The states are x, y and their velocities; accelerations are white noise. That is linear, so ``drift`` is a matrix and
# exact over any gap. The observation is not linear: a function of any number of states at once, written with
# ``x[..., i]``, so that one call serves all sigma points. Bearings are angles and wrap.


def radar(x):
    return np.stack([np.hypot(x[..., 0], x[..., 1]), np.arctan2(x[..., 1], x[..., 0])], axis=-1)


deviations = np.array([8.0, 0.01])
y = radar(truth) + deviations * rng.standard_normal((len(times), 2))
y[rng.random(y.shape) < 0.15] = np.nan


def tracker(acceleration):
    """An unscented filter for accelerations of this spectral density, in m²/s³."""
    model = NonlinearModel(
        observation=radar,
        observation_noise=deviations**2,
        observation_angles=[1],
        drift=[[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
        diffusion=[[0, 0], [0, 0], [1, 0], [0, 1]],
        spectral_density=acceleration,
        initial_mean=[-900.0, -500.0, 0.0, 0.0],
        initial_covariance=[100.0**2, 100.0**2, 20.0**2, 20.0**2],
    )
    return UnscentedKalmanFilter(model)


# %%
# Two modes and how often they change: a straight lasts about a minute, a turn about 25 seconds. Being rates, they hold
# for every gap.
single = tracker(2.0)
both = InteractingMultipleModel([tracker(0.01), tracker(2.0)], transition_rate=[[-1 / 60, 1 / 60], [1 / 25, -1 / 25]])
answers = {
    "one filter": single.filter(y, times),
    "two modes": both.filter(y, times),
    "two modes, smoothed": both.smooth(y, times),
}
straight = turning(times) == 0.0
for name, answer in answers.items():
    error = np.hypot(*(answer.mean[:, :2] - truth).T)
    print(f"{name:20s} error on straights {error[straight].mean():5.2f} m, in turns {error[~straight].mean():5.2f} m")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
seen = ~np.isnan(y).any(axis=1)
axes[0].plot(y[seen, 0] * np.cos(y[seen, 1]), y[seen, 0] * np.sin(y[seen, 1]), ".", color="0.7", label="radar")
axes[0].plot(*path.T, color="0.3", linewidth=1, label="truth")
for name in ("one filter", "two modes, smoothed"):
    axes[0].plot(*answers[name].mean[:, :2].T, linewidth=1, label=name)
axes[0].set(xlabel="x in m", ylabel="y in m", aspect="equal")
axes[0].legend()
axes[1].fill_between(times, ~straight, step="mid", color="0.9", label="turning")
for name in ("two modes", "two modes, smoothed"):
    axes[1].plot(times, answers[name].extra["mode_probability"][:, 1], label=name)
axes[1].set(xlabel="time in s", ylabel="probability of a turn")
axes[1].legend()
plt.show()

# %%
# On a stream, a smoother with a lag gives each position with a few seconds' hindsight, at a constant cost a sample.
smoother = FixedLagSmoother(single, lag_time=5.0)
state, delayed = smoother.initial_state(times[0]), []
for sample, gap in zip(y, np.diff(times, prepend=times[0]), strict=True):
    state = smoother.step(state, sample, dt=gap)
    delayed.append([state.lagged_time, *state.mean[:2]])
delayed = np.array(delayed)
error = np.hypot(*(delayed[:, 1:] - np.stack([np.interp(delayed[:, 0], fine, p) for p in path.T], axis=-1)).T)
now = np.hypot(*(answers["one filter"].mean[:, :2] - truth).T)
print(f"one filter at once {now[20:].mean():.2f} m, five seconds later {error[20:].mean():.2f} m")
