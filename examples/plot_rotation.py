"""
A state under a rotation
========================

An oscillator's state is a vector that turns, and spirals inwards as it is damped. Between two samples it turns by an
angle and shrinks by a factor, both known exactly: the matrix exponential. A discretisation rule that approximates it
gets the angle wrong, the factor, or both; with the wrong factor it may turn a decaying system into one that explodes.
"""

# %%
# One turn in one unit of time, lightly damped, as a linear system of two states; the second is read.
import matplotlib.pyplot as plt
import numpy as np

from statespace.lti import LinearSystem

omega, damping = 2 * np.pi, 0.3
A = np.array([[-damping, -omega], [omega, -damping]])
system = LinearSystem(A, [[omega], [0.0]], [[0.0, 1.0]], [[0.0]])
dt = 0.125
METHODS = {
    "zoh": "zero-order hold",
    "foh": "first-order hold",
    "bilinear": "bilinear",
    "euler": "forward Euler",
    "backward_euler": "backward Euler",
}
colours = dict(zip(METHODS, ("C0", "C1", "C2", "C3", "C4"), strict=True))
discrete = {method: system.discretize(dt, method=method) for method in METHODS}

# %%
# On the pole plane: both holds put the poles where the state really goes, exp((−0.3 ± 2πi) Δ). The bilinear rule keeps
# them inside the unit circle, a little too slow in angle. Forward Euler puts them outside: the turning vector is moved
# along its tangent, and gets longer with each step. Backward Euler shrinks it instead.
figure, (plane, spiral) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
angle = np.linspace(0, 2 * np.pi, 200)
plane.plot(np.cos(angle), np.sin(angle), color="0.7", linewidth=1)
for method, label in METHODS.items():
    poles = discrete[method].poles
    size = 10 if method == "foh" else 6
    plane.plot(poles.real, poles.imag, "o", color=colours[method], label=label, fillstyle="none", markersize=size)
    print(f"{label}: |pole| {np.abs(poles[0]):.4f}, angle {np.abs(np.angle(poles[0])):.4f}")
exact = np.exp((-damping + 1j * omega) * dt)
print(f"exactly: |pole| {np.abs(exact):.4f}, angle {np.angle(exact):.4f}")
plane.set(title="poles", xlim=(-0.1, 1.3), ylim=(-1.1, 1.1), aspect="equal")
plane.legend(loc="center left", fontsize=8)

# The state itself, let go at (1, 0).
fine = np.exp((-damping + 1j * omega) * np.linspace(0, 2, 400))
spiral.plot(fine.real, fine.imag, color="0.7", linewidth=1)
for method in ("zoh", "bilinear", "euler", "backward_euler"):
    state, path = np.array([1.0, 0.0]), []
    for _ in range(17):
        path.append(state)
        state = discrete[method].A @ state
    spiral.plot(*np.array(path).T, ".-", color=colours[method], linewidth=0.5, label=METHODS[method])
spiral.set(title="two turns of the state", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
spiral.legend(loc="lower left", fontsize=8)

# %%
# In the output, driven by a slow sine: the truth is the same system on a grid a hundred times finer. The first-order
# hold, which draws the input as a line, stays with it; the zero-order hold is half a step late; the bilinear rule has
# its resonance at the wrong frequency. Forward Euler is left out, being too large to draw.
t = np.arange(0, 6, dt)
dense = np.arange(0, 6, dt / 100)


def drive(t):
    return np.sin(2 * np.pi * 0.4 * t)


truth = system.simulate(drive(dense), times=dense, hold="foh").output[::100]
figure, axis = plt.subplots(figsize=(8, 3.5), layout="constrained")
axis.plot(t, truth, color="0.7", linewidth=3, label="truth")
for method in METHODS:
    y = discrete[method].simulate(drive(t)).output
    print(f"{METHODS[method]}: RMSE {np.sqrt(np.mean((y - truth) ** 2)):.3g}")
    if method != "euler":
        axis.plot(t, y, color=colours[method], linewidth=1, label=METHODS[method])
axis.set(xlabel="time", ylabel="output")
axis.legend(ncols=3, fontsize=8, loc="lower right")
plt.show()
