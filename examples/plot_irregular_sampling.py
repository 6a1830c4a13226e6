"""
Why the gaps must reach the model
=================================

Damped oscillators, each sampled at random times. The values alone say less about how fast one oscillates than the
values with the time that passed between them. The same network is fitted twice: with the times, and without them, as
if the samples lay on a grid.
"""

# %%
import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from statespace import S4DRegressor, SeriesCollection
from statespace.datasets import make_oscillators

X, y, _ = make_oscillators(n_series=400, random_state=0)
print(X)

# %%
# A ``SeriesCollection`` slices like an array, so scikit-learn's tools keep the times with their series.
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
options = {"d_model": 16, "n_layers": 2, "d_state": 16, "max_epochs": 15, "random_state": 0}
with_times = S4DRegressor(**options).fit(X_train, y_train)
without = S4DRegressor(**options).fit(SeriesCollection(X_train.values), y_train)

# %%
answers = {"with times": with_times.predict(X_test), "without": without.predict(SeriesCollection(X_test.values))}
scores = {
    "with times": with_times.score(X_test, y_test),
    "without": without.score(SeriesCollection(X_test.values), y_test),
}
figure, axes = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for axis, (name, answer) in zip(axes, answers.items(), strict=True):
    axis.plot(y_test, answer, "o", markersize=3)
    axis.axline((y_test.min(), y_test.min()), slope=1, color="0.6", linewidth=1)
    axis.set(title=f"{name}: R² = {scores[name]:.2f}", xlabel="true log₂ frequency")
axes[0].set_ylabel("predicted")
plt.show()

# %%
# The fitted model also runs on a stream, one sample and its gap at a time. After the last sample its answer is the
# one that ``predict`` gives for the whole series.
series = X_test[0]
stream = with_times.stream()
running = [
    stream.step(value, dt=gap)
    for value, gap in zip(series.to_numpy(), series.index.to_series().diff().fillna(1.0), strict=True)
]
print(f"streamed {running[-1]:.10f}, predicted {answers['with times'][0]:.10f}")

figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
axis.plot(series.index, running, ".-", label="running estimate")
axis.axhline(y_test[0], color="0.5", label="truth")
axis.set(xlabel="time", ylabel="log₂ frequency")
axis.legend()
plt.show()
