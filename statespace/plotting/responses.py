"""What a linear system makes of an impulse, and its poles."""

import numpy as np

from statespace.lti import LinearSystem
from statespace.plotting.axes import some_axes

# Longest kernel that is drawn unasked.
_MOST = 1000


class ImpulseResponseDisplay:
    """How long and in what way a linear system remembers: its impulse response, and its weights on a grid.

    h(t) = C exp(A t) B is what an impulse leaves after a time t; the kernel holds the weights with which samples that
    lie one gap apart are read. Both are shown for one system, or for several channels of a layer.

    Parameters
    ----------
    times : ndarray of shape (n_times,)
    responses : ndarray of shape (n_times, n_systems)
    gap : float
        Between two samples.
    kernels : ndarray of shape (length, n_systems)
    labels : list of str, optional

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, shape (2,)
        Of the impulse response and of the kernel.
    ax_ : matplotlib.axes.Axes
        The first.
    figure_ : matplotlib.figure.Figure
    lines_, kernel_lines_ : list of matplotlib.lines.Line2D
        A curve, and a row of points, for each system.

    Examples
    --------
    >>> from statespace.layers import S4D
    >>> from statespace.plotting import ImpulseResponseDisplay
    >>> display = ImpulseResponseDisplay.from_estimator(S4D(d_model=4, d_state=8), channels=[0, 3], length=50)
    >>> display.kernels.shape
    (50, 2)
    """

    def __init__(self, times, responses, gap, kernels, labels=None):
        self.times, self.responses, self.gap, self.kernels, self.labels = times, responses, gap, kernels, labels

    @classmethod
    def from_estimator(
        cls, estimator, *, layer=0, channels=None, backward=False, gap=None, length=None, axes=None, **options
    ):
        """Draw systems of an LTI layer.

        Parameters
        ----------
        estimator : DeepEstimator, DeepForecaster, ResidualStack or LinearMixer
            A fitted estimator, a model, or a layer: S4, S4D, DSS, S5 or H3.
        layer : int, default=0
            Which layer, counted from the input; negative from the output.
        channels : int or sequence of int, optional
            None: the first eight.
        backward : bool, default=False
            Of a bidirectional layer the system that runs backwards in time.
        gap : float, optional
            Of the grid, in units of the times of `fit`; None is the typical gap, ``time_scale_``.
        length : int, optional
            Of the kernel in samples; None: until it stays below a hundredth of its largest value, 1000 at most.
        axes : array-like of two matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        ImpulseResponseDisplay

        Raises
        ------
        ValueError
            The layer's system depends on its input.
        """
        from statespace.inspection import layer_kernel, linear_system
        from statespace.inspection.parts import layer_of

        mixer, unit = layer_of(estimator, layer)
        gap = unit if gap is None else float(gap)
        names = _channels(mixer, channels)
        where = {"layer": layer, "backward": backward}
        most = _MOST if length is None else length
        kernels = np.stack([layer_kernel(estimator, most, channel, gap=gap, **where) for channel in names], axis=1)
        kernels = kernels[: _heard(kernels)] if length is None else kernels
        responses = [_sampled(linear_system(estimator, name, **where), gap, len(kernels)) for name in names]
        labels = [f"channel {channel}" for channel in names]
        return cls(responses[0][0], np.stack([h for _, h in responses], axis=1), gap, kernels, labels).plot(
            axes, **options
        )

    @classmethod
    def from_system(cls, system, *, gap=None, length=None, axes=None, **options):
        """Draw a `statespace.lti.LinearSystem` in continuous time with one input and one output.

        Parameters
        ----------
        system : LinearSystem
        gap : float, optional
            Of the grid; None is a hundredth of the time in which the slowest mode decays.
        length : int, optional
            Of the kernel in samples; None: until it stays below a hundredth of its largest value, 1000 at most.
        axes : array-like of two matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        ImpulseResponseDisplay

        Raises
        ------
        ValueError
            It has several inputs or outputs (take one of each, ``system[0, 0]``), or is in discrete time.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> from statespace.plotting import ImpulseResponseDisplay
        >>> display = ImpulseResponseDisplay.from_system(LinearSystem(-1.0, 1.0, 1.0), gap=0.5, length=3)
        >>> display.kernels[:, 0].round(3).tolist()
        [0.0, 0.393, 0.239]
        """
        if system.dt is not None or system.n_inputs != 1 or system.n_outputs != 1:
            raise ValueError(
                "a system in continuous time with one input and one output is drawn; take system[0, 0] of several. "
                f"Got {system!r}."
            )
        gap = _slowest(system) / 100 if gap is None else float(gap)
        kernel = system.kernel(gap, _MOST if length is None else length)[:, np.newaxis]
        kernel = kernel[: _heard(kernel)] if length is None else kernel
        times, response = _sampled(system, gap, len(kernel))
        return cls(times, response[:, np.newaxis], gap, kernel).plot(axes, **options)

    def plot(self, axes=None, *, line_kw=None, kernel_kw=None):
        """Draw.

        Parameters
        ----------
        axes : array-like of two matplotlib.axes.Axes, optional
            None makes a figure.
        line_kw, kernel_kw : dict, optional
            To ``ax.plot`` for the responses and for the kernels.

        Returns
        -------
        ImpulseResponseDisplay
        """
        self.axes_, self.figure_ = some_axes(axes, 2, 1, (8.0, 6.0))
        self.ax_ = self.axes_[0]
        above, below = self.axes_
        self.lines_ = above.plot(self.times, self.responses, **(line_kw or {}))
        style = {"marker": ".", "linewidth": 0.6, "markersize": 4} | (kernel_kw or {})
        self.kernel_lines_ = below.plot(np.arange(len(self.kernels)), self.kernels, **style)
        above.set(title="impulse response", xlabel="time since the impulse")
        below.set(title=f"kernel at a gap of {self.gap:.3g}", xlabel="samples ago")
        if self.labels is not None and len(self.labels) > 1:
            for line, label in zip(self.lines_, self.labels, strict=True):
                line.set_label(label)
            above.legend(ncols=2, fontsize="small")
        for ax in self.axes_:
            ax.axhline(0.0, color="black", linewidth=0.6)
        return self


class PolesDisplay:
    """Poles of linear systems: in continuous time, where they say how fast a mode decays and turns, and on a grid.

    exp(λ t) decays with the rate -Re λ and turns Im λ / 2π times per unit of time; it is stable left of the line. On a
    grid of gaps Δ a mode keeps the factor exp(λ Δ) from sample to sample (the bilinear rule has another), and is stable
    within the circle.

    Parameters
    ----------
    poles : list of ndarray
        Complex, of each system in continuous time.
    gap : float
    grid_poles : list of ndarray
        Of each system on a grid of this gap.
    labels : list of str, optional

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, shape (2,)
        Of continuous time and of the grid.
    ax_ : matplotlib.axes.Axes
        The first.
    figure_ : matplotlib.figure.Figure
    points_, grid_points_ : list of matplotlib.lines.Line2D
        Of each system.

    Examples
    --------
    >>> from statespace.layers import S4D
    >>> from statespace.plotting import PolesDisplay
    >>> display = PolesDisplay.from_estimator(S4D(d_model=4, d_state=8), channels=2)
    >>> len(display.poles[0]), bool((abs(display.grid_poles[0]) < 1).all())
    (8, True)
    """

    def __init__(self, poles, gap, grid_poles, labels=None):
        self.poles, self.gap, self.grid_poles, self.labels = poles, gap, grid_poles, labels

    @classmethod
    def from_estimator(cls, estimator, *, layer=0, channels=None, backward=False, gap=None, axes=None, **options):
        """Draw the poles of an LTI layer.

        Parameters
        ----------
        estimator : DeepEstimator, DeepForecaster, ResidualStack or LinearMixer
            A fitted estimator, a model, or a layer: S4, S4D, DSS, S5 or H3.
        layer : int, default=0
            Which layer, counted from the input; negative from the output.
        channels : int or sequence of int, optional
            None: the first eight, and of S5 the first, whose poles all share.
        backward : bool, default=False
            Of a bidirectional layer the system that runs backwards in time.
        gap : float, optional
            Of the grid, in units of the times of `fit`; None is the typical gap, ``time_scale_``.
        axes : array-like of two matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        PolesDisplay

        Raises
        ------
        ValueError
            The layer's system depends on its input.
        """
        from statespace.inspection import linear_system
        from statespace.inspection.parts import layer_of
        from statespace.inspection.systems import discretized
        from statespace.layers import S5

        mixer, unit = layer_of(estimator, layer)
        gap = unit if gap is None else float(gap)
        names = [0] if channels is None and isinstance(mixer, S5) else _channels(mixer, channels)
        where = {"layer": layer, "backward": backward}
        poles = [linear_system(estimator, channel, **where).poles for channel in names]
        on_grid = [discretized(estimator, channel, gap=gap, **where).poles for channel in names]
        return cls(poles, gap, on_grid, [f"channel {channel}" for channel in names]).plot(axes, **options)

    @classmethod
    def from_system(cls, system, *, gap=1.0, method="zoh", axes=None, **options):
        """Draw a `statespace.lti.LinearSystem` in continuous time.

        Parameters
        ----------
        system : LinearSystem
        gap : float, default=1.0
            Of the grid.
        method : str, default="zoh"
            As in ``LinearSystem.discretize``.
        axes : array-like of two matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        PolesDisplay

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> from statespace.plotting import PolesDisplay
        >>> PolesDisplay.from_system(LinearSystem(-1.0, 1.0, 1.0), gap=0.5).grid_poles[0].real.round(3)
        array([0.607])
        """
        if not isinstance(system, LinearSystem) or system.dt is not None:
            raise ValueError(f"a LinearSystem in continuous time is expected. Got {system!r}.")
        return cls([system.poles], gap, [system.discretize(gap, method=method).poles]).plot(axes, **options)

    def plot(self, axes=None, *, point_kw=None):
        """Draw.

        Parameters
        ----------
        axes : array-like of two matplotlib.axes.Axes, optional
            None makes a figure.
        point_kw : dict, optional
            To ``ax.plot`` for the poles.

        Returns
        -------
        PolesDisplay
        """
        self.axes_, self.figure_ = some_axes(axes, 1, 2, (10.0, 4.6))
        self.ax_ = self.axes_[0]
        plane, disc = self.axes_
        style = {"marker": "x", "linestyle": "none", "markersize": 5} | (point_kw or {})
        self.points_, self.grid_points_ = [], []
        for place, (poles, on_grid) in enumerate(zip(self.poles, self.grid_poles, strict=True)):
            label = None if self.labels is None else self.labels[place]
            self.points_ += plane.plot(np.real(poles), np.imag(poles), **({"label": label} | style))
            self.grid_points_ += disc.plot(np.real(on_grid), np.imag(on_grid), **style)
        plane.axvline(0.0, color="black", linewidth=0.8)
        turn = np.linspace(0.0, 2 * np.pi, 201)
        disc.plot(np.cos(turn), np.sin(turn), color="black", linewidth=0.8)
        disc.set_aspect("equal")
        plane.set(title="continuous time", xlabel="real part", ylabel="imaginary part")
        disc.set(title=f"at a gap of {self.gap:.3g}", xlabel="real part", ylabel="imaginary part")
        if self.labels is not None and len(self.labels) > 1:
            plane.legend(fontsize="small")
        return self


def _channels(mixer, channels):
    if channels is None:
        return list(range(min(8, getattr(mixer, "heads", mixer.d_model))))
    return [int(channel) for channel in np.atleast_1d(channels)]


def _slowest(system):
    """The time in which the slowest mode that decays comes down to exp(-7)."""
    decay, size = -system.poles.real, np.abs(system.poles).max(initial=0.0)
    decay = decay[decay > 1e-9 * size]
    return 7.0 / decay.min() if len(decay) else 1.0


def _heard(kernels):
    """How many samples it takes until the weights stay small."""
    size = np.abs(kernels)
    return int(np.flatnonzero((size >= 0.01 * size.max()).any(axis=1)).max(initial=0)) + 2


def _sampled(system, gap, length):
    """Times and impulse response as far as the kernel goes, four times for each of its samples, a hundred at least."""
    n = max(100, 4 * length)
    step = gap * max(length - 1, 1) / n
    grid = system.discretize(step)
    powers = LinearSystem(grid.A, system.B, system.C, dt=step)
    return step * np.arange(n + 1), powers.kernel(None, n + 2)[1:]
