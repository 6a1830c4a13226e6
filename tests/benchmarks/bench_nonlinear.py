"""The extended and unscented filters against filterpy's on one discrete problem, and what the others cost a sample."""

import numpy as np
from harness import machine, race, table

from statespace.kalman.nonlinear import (
    EnsembleKalmanFilter,
    ExtendedKalmanFilter,
    FixedLagSmoother,
    InteractingMultipleModel,
    NonlinearModel,
    ParticleFilter,
    UnscentedKalmanFilter,
)

TESTS = ["tests/kalman/nonlinear"]
SAMPLES = 300


def transition(x):
    """A turning target: position, velocity, rate of turn, over a gap of one."""
    angle = x[..., 4]
    cos, sin = np.cos(angle), np.sin(angle)
    result = np.empty_like(x)
    result[..., 2] = cos * x[..., 2] - sin * x[..., 3]
    result[..., 3] = sin * x[..., 2] + cos * x[..., 3]
    result[..., 0] = x[..., 0] + 0.5 * (x[..., 2] + result[..., 2])
    result[..., 1] = x[..., 1] + 0.5 * (x[..., 3] + result[..., 3])
    result[..., 4] = angle
    return result


def transition_jacobian(x):
    cos, sin = np.cos(x[4]), np.sin(x[4])
    turned = -sin * x[2] - cos * x[3], cos * x[2] - sin * x[3]
    result = np.eye(5)
    result[2:4, 2:4] = [[cos, -sin], [sin, cos]]
    result[2:4, 4] = turned
    result[0:2, 2:] = 0.5 * result[2:4, 2:]
    result[0, 2] += 0.5
    result[1, 3] += 0.5
    return result


def observation(x):
    result = np.empty((*x.shape[:-1], 2))
    result[..., 0] = np.hypot(x[..., 0], x[..., 1])
    result[..., 1] = np.arctan2(x[..., 1], x[..., 0])
    return result


def observation_jacobian(x):
    r = np.hypot(x[0], x[1])
    return np.array([[x[0] / r, x[1] / r, 0, 0, 0], [-x[1] / r**2, x[0] / r**2, 0, 0, 0]])


def problem():
    noise = np.diag([0.03, 0.03, 0.1, 0.1, 1e-4])
    return NonlinearModel(
        observation, [1.0, 1e-4], transition=transition, process_noise=noise,
        initial_mean=[60.0, 80.0, 2.0, -1.0, 0.05], initial_covariance=[25.0, 25.0, 1.0, 1.0, 0.01],
        transition_jacobian=transition_jacobian, observation_jacobian=observation_jacobian,
    ), noise  # fmt: skip


def peers(model, noise, y):
    """filterpy's filters over the record, written as its users write them."""
    from filterpy.kalman import ExtendedKalmanFilter as ExtendedPeer
    from filterpy.kalman import MerweScaledSigmaPoints
    from filterpy.kalman import UnscentedKalmanFilter as UnscentedPeer

    mean, covariance, r = model.initial_mean, model.initial_covariance, np.diag([1.0, 1e-4])

    def extended():
        peer = ExtendedPeer(5, 2)
        peer.x, peer.P, peer.R, peer.Q = mean.copy(), covariance.copy(), r, noise
        means = []
        for k, y_t in enumerate(y):
            if k:
                peer.F = transition_jacobian(peer.x)
                peer.x = transition(peer.x)
                peer.P = peer.F @ peer.P @ peer.F.T + peer.Q
            peer.update(y_t, observation_jacobian, observation)
            means.append(peer.x)
        return np.array(means)

    def unscented():
        points = MerweScaledSigmaPoints(5, 1.0, 2.0, 0.0)
        peer = UnscentedPeer(5, 2, 1.0, hx=observation, fx=lambda x, dt: transition(x), points=points)
        peer.x, peer.P, peer.R, peer.Q = mean.copy(), covariance.copy(), r, noise
        peer.sigmas_f = points.sigma_points(mean, covariance)
        means = []
        for k, y_t in enumerate(y):
            if k:
                peer.predict()
            peer.update(y_t)
            means.append(peer.x)
        return np.array(means)

    return extended, unscented


def ensemble_peer(model, noise, y, members=100):
    """filterpy's ensemble filter with as many members; both draw, and their means differ by sampling errors."""
    from filterpy.kalman import EnsembleKalmanFilter as EnsemblePeer

    peer = EnsemblePeer(
        model.initial_mean.copy(), model.initial_covariance.copy(), 2, 1.0, members, observation,
        lambda x, dt: transition(x),
    )
    peer.R, peer.Q = np.diag([1.0, 1e-4]), noise
    means = []
    for k, y_t in enumerate(y):
        if k:
            peer.predict()
        peer.update(y_t)
        means.append(peer.x)
    return np.array(means)


def streamed(method, y):
    state = None
    for y_t in y:
        state = method.step(state, y_t)
    return state


def main():
    print(machine(["numpy", "scipy", "filterpy"]))
    model, noise = problem()
    y = model.simulate(SAMPLES, random_state=0).observations
    ekf, ukf = ExtendedKalmanFilter(model), UnscentedKalmanFilter(model)
    extended = {
        "statespace": lambda: ekf.filter(y).mean, "statespace, step by step": lambda: streamed(ekf, y),
        "statespace, smoother": lambda: ekf.smooth(y),
    }  # fmt: skip
    unscented = {
        "statespace": lambda: ukf.filter(y).mean, "statespace, step by step": lambda: streamed(ukf, y),
        "statespace, smoother": lambda: ukf.smooth(y),
    }  # fmt: skip
    try:
        extended["filterpy"], unscented["filterpy"] = peers(model, noise, y)
    except ImportError:
        print("filterpy is not installed: no row")
    for title, contenders in (("extended", extended), ("unscented", unscented)):
        if "filterpy" in contenders:
            error = np.abs(contenders["filterpy"]() - contenders["statespace"]()).max()
            print(f"{title}: largest difference of the means from filterpy's {error:.1e}")
        table(f"{title} Kalman filter, 5 states, 2 outputs", race(contenders), "statespace", per=SAMPLES, unit="us")
    members = {
        "statespace": lambda: EnsembleKalmanFilter(model, n_members=100, random_state=0).filter(y).mean,
        "statespace, deterministic": lambda: EnsembleKalmanFilter(
            model, n_members=100, method="deterministic", random_state=0
        ).filter(y).mean,
    }
    if "filterpy" in unscented:
        members["filterpy"] = lambda: ensemble_peer(model, noise, y)
    distances = {name: np.abs(run() - unscented["statespace"]())[:, :2].max() for name, run in members.items()}
    found = ", ".join(f"{name} {distance:.2f}" for name, distance in distances.items())
    print(f"\nensembles of 100, largest distance of the position from the unscented filter's: {found}")
    table("ensemble Kalman filter, 100 members", race(members, rounds=3), "statespace", per=SAMPLES, unit="us")
    others = {
        "unscented": lambda: ukf.log_likelihood(y),
        "cubature": lambda: UnscentedKalmanFilter(model, points="cubature").log_likelihood(y),
        "ensemble, 100 members": lambda: EnsembleKalmanFilter(model, random_state=0).log_likelihood(y),
        "ensemble, deterministic": lambda: EnsembleKalmanFilter(
            model, method="deterministic", random_state=0
        ).log_likelihood(y),
        "particle, 1,000": lambda: ParticleFilter(model, random_state=0).log_likelihood(y),
        "two modes (IMM)": lambda: InteractingMultipleModel([ukf, ekf], [[0.9, 0.1], [0.1, 0.9]]).log_likelihood(y),
        "fixed lag of 10": lambda: FixedLagSmoother(ukf, lag=10).smooth(y),
    }
    table("log-likelihood of the same record", race(others, rounds=5), "unscented", per=SAMPLES, unit="us")


if __name__ == "__main__":
    main()
