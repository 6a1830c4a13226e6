"""sktime's own checks for both forecasters and the splitter."""

import pytest
from sktime.utils.estimator_checks import check_estimator

from statespace.forecasting import KalmanForecaster, S4DForecaster, TimeSplitter

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
    results = check_estimator(estimator, raise_exceptions=False, verbose=False, tests_to_exclude=expected)
    assert {name: repr(result)[:200] for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) > 40
