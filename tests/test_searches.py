"""A search over a deep estimator on a local dask cluster, through joblib, finds what it finds in one process."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV

from statespace import S4DRegressor, SeriesCollection

distributed = pytest.importorskip("distributed")


def test_a_grid_search_on_a_dask_cluster(tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=n) for n in rng.integers(5, 12, size=12)]
    X = SeriesCollection(values, times=[np.cumsum(rng.exponential(size=len(x))) for x in values])
    y = np.array([x.sum() for x in values])
    reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=2, random_state=0, device="cpu")
    search = GridSearchCV(reg, {"learning_rate": [1e-3, 3e-2]}, cv=2, scoring="neg_mean_absolute_error")
    expected = search.fit(X, y)
    table, best = pd.DataFrame(expected.cv_results_), expected.best_estimator_.predict(X)
    # One process of one thread: what draws from torch's global generator must not share it.
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path)}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        found = GridSearchCV(reg, search.param_grid, cv=2, scoring=search.scoring).fit(X, y)
    columns = [name for name in table if "time" not in name]
    pd.testing.assert_frame_equal(pd.DataFrame(found.cv_results_)[columns], table[columns])
    np.testing.assert_allclose(found.best_estimator_.predict(X), best, rtol=1e-6)
