"""sktime's own checks for the forecasters and the splitter."""

import pytest
from sktime.tests import test_all_estimators
from sktime.utils.estimator_checks import check_estimator

from statespace.forecasting import (
    DeltaNetForecaster,
    H3Forecaster,
    KalmanForecaster,
    Mamba2Forecaster,
    MambaForecaster,
    RWKVForecaster,
    S4DForecaster,
    S4Forecaster,
    S5Forecaster,
    SSMForecaster,
    TimeSplitter,
)

# Checks that fail, each with the reason why it should.
_FILES = (
    "save(path) writes a safetensors file for statespace.load, which runs no code from it; sktime's load expects its "
    "own pickle, which save(path, 'pickle') writes"
)
EXPECTED: dict[type, dict[str, str]] = {
    KalmanForecaster: {"test_save_estimators_to_file": _FILES},
    S4DForecaster: {"test_save_estimators_to_file": _FILES},
    TimeSplitter: {},
}


@pytest.mark.parametrize("estimator", EXPECTED, ids=lambda estimator: estimator.__name__)
@pytest.mark.filterwarnings("ignore")
def test_sktimes_checks(estimator):
    expected = list(EXPECTED[estimator])
    # All of them for one set of parameters; for both, those below that parameters make a difference to.
    given = estimator if estimator is TimeSplitter else estimator.create_test_instance()
    results = check_estimator(given, raise_exceptions=False, verbose=False, tests_to_exclude=expected)
    assert {name: repr(result)[:200] for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) > 40


# S4DForecaster has been through all of them; the others differ from it in their parameters and in the layer, and the
# second set of KalmanForecaster's in the process and in what a panel shares.
# (A class imported by its own name would be collected here, with all of sktime's estimators.)
OF_PARAMETERS = [name for name in vars(test_all_estimators.TestAllObjects) if name.startswith("test_")]
OF_THE_LAYER = [
    "test_fit_returns_self", "test_fit_idempotent", "test_fit_does_not_overwrite_hyper_params",
    "test_predict_quantiles", "test_persistence_via_pickle", "test_hierarchical_with_exogenous",
]  # fmt: skip


OF_ANOTHER_LAYER = [*OF_THE_LAYER[3:], "test_constructor", "test_get_params", "test_set_params", "test_clone"]


@pytest.mark.parametrize(
    ("estimator", "checks"),
    [
        (KalmanForecaster, OF_PARAMETERS + OF_THE_LAYER),
        (SSMForecaster, OF_PARAMETERS + OF_THE_LAYER),
        (S4DForecaster, OF_THE_LAYER),
        *(
            (estimator, OF_ANOTHER_LAYER)
            for estimator in (
                S4Forecaster, S5Forecaster, H3Forecaster, MambaForecaster, Mamba2Forecaster, RWKVForecaster,
                DeltaNetForecaster,
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_sktimes_checks_of_parameters_and_layer(estimator, checks):
    results = check_estimator(estimator, raise_exceptions=False, verbose=False, tests_to_run=checks)
    assert {name: repr(result)[:200] for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) >= len(checks)
