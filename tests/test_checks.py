"""scikit-learn's checks for every deep regressor and classifier."""

import warnings

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

import statespace

# Rows are series: their steps are no features that a linear model would read off. A system fast enough to tell single
# steps apart, read at the last step, learns what the checks ask for in few large steps.
SHARED = {
    "n_layers": 1, "dropout": 0.0, "pooling": "last", "validation_fraction": 0, "random_state": 0, "device": "cpu",
}  # fmt: skip
REGRESSOR = SHARED | {"d_model": 16, "max_epochs": 6, "learning_rate": 0.05, "ssm_learning_rate": 0.01}
CLASSIFIER = SHARED | {"d_model": 4, "max_epochs": 3, "learning_rate": 0.1}
LAYER = {"Regressor": {"d_state": 16, "dt_min": 0.3, "dt_max": 1.0}, "Classifier": {"d_state": 4, "dt_max": 1.0}}
# The selective layers tell steps apart by a convolution over all ten, and learn in smaller batches.
SHARP = {"Regressor": {"d_conv": 10, "batch_size": 16}, "Classifier": {"d_model": 8}}
SELECTIVE = {"Mamba": {"d_state": 4}, "Mamba2": {"d_state": 4}, "DeltaNet": {}}
# Checks that fail, each with the reason why it should.
EXPECTED = {
    (
        "RWKVRegressor",
        "check_regressors_train",
    ): "averages behind a shift by one step do not tell the steps of ten noisy "
    "features apart in the two epochs that are allowed here; three layers and fifteen do",
}
# Equal in exact arithmetic, and up to the rounding of a training in float32 otherwise, where this check asks for 1e-7:
# some systems get there and some do not. tests/test_weights.py asks at the precision that there is.
ROUNDED = "check_sample_weight_equivalence_on_dense_data"
# These ask how well an estimator has learnt, or that it has learnt at all; the others are content with one epoch.
LEARNT = {
    "check_class_weight_classifiers", "check_classifiers_classes", "check_classifiers_one_label_sample_weights",
    "check_classifiers_train", "check_fit_idempotent", "check_regressors_train", ROUNDED,
}  # fmt: skip
# The state of S5 is one for all channels.
JOINT = {"Regressor": {"d_state": 64, "dt_min": 0.1}, "Classifier": {"d_state": 16, "dt_min": 0.1}}


def estimators():
    for kind, options in (("Regressor", REGRESSOR), ("Classifier", CLASSIFIER)):
        yield getattr(statespace, f"SSM{kind}")(layer_options=LAYER[kind], **options)
        for layer in ("S4", "S4D", "S5", "H3"):
            own = LAYER[kind] | (JOINT[kind] if layer == "S5" else {})
            # The gates of H3 are slower to learn: after six epochs it stands at the least score that is asked for.
            own = own | ({"max_epochs": 9} if (layer, kind) == ("H3", "Regressor") else {})
            yield getattr(statespace, f"{layer}{kind}")(**options | own)
        for layer, own in SELECTIVE.items():
            yield getattr(statespace, f"{layer}{kind}")(**options | SHARP[kind] | own)
    yield statespace.RWKVRegressor(**REGRESSOR | {"d_model": 4, "max_epochs": 2})
    yield statespace.RWKVClassifier(**CLASSIFIER | {"d_model": 8})


def checks():
    """All checks for the general estimators; for the named ones, which share their code, each on one kind of data."""
    for estimator in estimators():
        name, seen = type(estimator).__name__, set()
        brief = clone(estimator).set_params(max_epochs=1)
        for _, check in estimator_checks_generator(estimator):
            title = check.func.__name__
            if title not in seen or name.startswith("SSM"):
                reason = EXPECTED.get((name, title))
                marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
                if title == ROUNDED:
                    marks = [pytest.mark.xfail(reason="trained in float32, compared at 1e-7", strict=False)]
                yield pytest.param(estimator if title in LEARNT else brief, check, id=f"{name}-{title}", marks=marks)
            seen.add(title)


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
