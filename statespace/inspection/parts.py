"""Where in an estimator its network is, and in the network its layers."""

from statespace.layers import SequenceMixer
from statespace.models import ResidualStack, ReverseComplement


def network(model):
    """The residual stack in a fitted estimator or a model, and the unit of its gaps.

    Parameters
    ----------
    model : DeepEstimator, DeepForecaster or torch.nn.Module
        An estimator has been fitted.

    Returns
    -------
    stack : ResidualStack
    unit : float
        Of a gap of 1, in the units of the estimator's times; 1 for a model.

    Raises
    ------
    TypeError
        There is no such network in it.
    sklearn.exceptions.NotFittedError
        The estimator is not fitted.

    Examples
    --------
    >>> from statespace.inspection.parts import network
    >>> from statespace.models import ResidualStack
    >>> stack, unit = network(ResidualStack(1, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}))
    >>> len(stack.blocks), unit
    (1, 1.0)
    """
    check = getattr(model, "check_is_fitted", None)  # sktime's
    if check is not None:
        check()
    elif hasattr(model, "fit") and not hasattr(model, "model_"):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(model)
    found = getattr(model, "model_", model)
    found = getattr(found, "stack", found)
    if isinstance(found, ReverseComplement):
        found = found.strand
    if not isinstance(found, ResidualStack):
        raise TypeError(
            f"a fitted deep estimator or one of its networks is expected. Got {type(model).__name__} instead."
        )
    return found, float(getattr(model, "time_scale_", 1.0))


def layer_of(model, layer=0):
    """One layer of an estimator or model, or the layer itself, and the unit of its gaps.

    Parameters
    ----------
    model : DeepEstimator, DeepForecaster, ResidualStack or SequenceMixer
    layer : int, default=0
        Which, counted from the input; negative from the output.

    Returns
    -------
    mixer : SequenceMixer
    unit : float
        As in `network`.

    Raises
    ------
    IndexError
        There are not so many layers.

    Examples
    --------
    >>> from statespace.inspection.parts import layer_of
    >>> from statespace.models import ResidualStack
    >>> layer_of(ResidualStack(1, 1, d_model=4, n_layers=2, layer_options={"d_state": 4}), -1)[0].d_state
    4
    """
    if isinstance(model, SequenceMixer):
        return model, 1.0
    stack, unit = network(model)
    mixers = [block.mixer for block in stack._blocks]
    if not -len(mixers) <= layer < len(mixers):
        raise IndexError(f"the network has {len(mixers)} layers, counted from 0. Got layer={layer!r}.")
    return mixers[layer], unit
