"""
Identifying a plant from irregular samples
==========================================

A mass on two springs is pushed by a force and its position is read at no regular times. `LTIRegressor` finds the
differential equation behind the record: how many states it has, its poles with their standard errors, its frequency
response. The same model then simulates, and predicts a few samples ahead.
"""

# %%
# The plant has two resonances. The force is held between samples; the reading has noise of 5 % of its spread. Of a
# grid with a step of 0.2 s, 40 % of the samples were kept.
import matplotlib.pyplot as plt
import numpy as np

from statespace.lti import LinearSystem, LTIRegressor

rng = np.random.default_rng(0)
A = [[0.0, 1.0, 0.0, 0.0], [-4.0, -0.25, 1.5, 0.0], [0.0, 0.0, 0.0, 1.0], [3.0, 0.0, -8.0, -0.5]]
plant = LinearSystem(A, [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.5, 0.0])

grid = 0.2 * np.arange(3000)
times = grid[np.sort(rng.choice(3000, 1200, replace=False))]
force = rng.choice([-1.0, 1.0], size=(1200, 1))
position = plant.simulate(force, times=times).output.ravel()
reading = position + 0.05 * position.std() * rng.normal(size=1200)
train, test = slice(0, 800), slice(800, 1200)

# %%
# Nothing is said about the order: models of the orders 1, 2, … are fitted until the Bayesian information criterion no
# longer falls. An output-error model minimises the errors of a simulation, which is what this noise asks for.
model = LTIRegressor(noise_model="output_error").fit(force[train], reading[train], times=times[train])
print("order", model.order_, "by BIC less its minimum:", (model.criterion_ - model.criterion_.min()).round(0))
for pole, error in zip(model.poles_, model.pole_errors_, strict=True):
    true = plant.poles[np.argmin(np.abs(plant.poles - pole))]
    print(f"pole {pole:.4f}, standard errors {error.real:.4f} and {error.imag:.4f}; true {true:.4f}")

# %%
# The frequency response beside the true one, and the poles. Frequencies are in cycles per second.
frequency = np.geomspace(0.05, 1.5, 300)
figure, (axis, plane) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axis.semilogx(frequency, plant.bode(frequency).magnitude, color="0.6", linewidth=3, label="true")
axis.semilogx(frequency, model.bode(frequency).magnitude, "--", label="identified")
axis.axvline(0.5 / np.median(np.diff(times)), color="0.8", linewidth=1, label="half the median rate")
axis.set(xlabel="frequency in Hz", ylabel="magnitude in dB")
axis.legend()
plane.plot(plant.poles.real, plant.poles.imag, "o", color="0.6", markersize=10, label="true")
plane.errorbar(
    model.poles_.real, model.poles_.imag, 2 * model.pole_errors_.imag, 2 * model.pole_errors_.real, "x",
    label="identified, 2 standard errors",
)  # fmt: skip
plane.set(xlabel="real part in 1/s", ylabel="imaginary part in rad/s")
plane.legend()
plt.show()

# %%
# On samples that it has not seen the model runs free from the force alone, once its state at their beginning is
# estimated from the first ten readings.
window = reading[test].copy()
window[10:] = np.nan
simulated = model.predict(force[test], window, times[test], k=np.inf)
error = np.sqrt(np.mean((simulated - position[test]) ** 2)) / position.std()
print(f"simulation: {100 * error:.1f} % of the spread, noise: 5 %")

# %%
# With noise that acts on the state (wind, friction) a simulation drifts off, and a predictor that looks at the readings
# does better. ``noise_model="innovations"`` estimates how large either noise is.
wind = LinearSystem(plant.A, np.c_[plant.B, plant.B], plant.C)
gusts = rng.normal(size=1200)
gusty = wind.simulate(np.c_[force, gusts], times=times).output.ravel() + 0.02 * rng.normal(size=1200)
filtering = LTIRegressor(4).fit(force[train], gusty[train], times=times[train])
for k in (1, 2, 5, 10, np.inf):
    print(f"{k} samples ahead: R² = {filtering.score(force[test], gusty[test], times[test], k=k):.3f}")

figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
shown = slice(1040, 1110)
axis.plot(times[shown], gusty[shown], ".", color="0.4", label="readings")
for k, style in ((1, "-"), (10, "--")):
    ahead = filtering.predict(force[test], gusty[test], times[test], k=k)
    axis.plot(times[shown], ahead[240:310], style, linewidth=1, label=f"{k} ahead")
axis.set(xlabel="time in s", ylabel="position")
axis.legend(ncols=3)
plt.show()
