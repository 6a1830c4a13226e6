"""Class labels: out of every form into one array, and numbers back into that form."""

import numpy as np
import pandas as pd
import pytest

from statespace import SeriesCollection
from statespace.labels import check_numbers, flat_labels


@pytest.mark.parametrize(
    ("y", "flat"),
    [
        (["a", "b"], ["a", "b"]),
        (np.array([[3, 1], [2, 3]]), [3, 1, 2, 3]),
        ([["a"], ["b", "c"]], ["a", "b", "c"]),
        (np.array([np.array([1, 2]), np.array([3])], dtype=object), [1, 2, 3]),
        (pd.Series(["a", "b"], index=[4, 2]), ["a", "b"]),
        (pd.DataFrame({"label": ["a", "b"]}), ["a", "b"]),
        (SeriesCollection([[1.0], [2.0, 3.0]]), [1, 2, 3]),
        ([True, None], [True, None]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_flat_and_back(y, flat):
    labels, restore = flat_labels(y)
    assert labels.tolist() == flat
    numbers = 10.0 + np.arange(len(flat))
    again = flat_labels(restore(numbers))[0]
    np.testing.assert_array_equal(again, numbers)


def test_frames_keep_their_index():
    y = [pd.Series(["a", "b"], index=[0.5, 2.0]), pd.Series(["b"], index=[1.0])]
    labels, restore = flat_labels(y)
    assert labels.tolist() == ["a", "b", "b"]
    for row, expected in zip(restore([1, 2, 3]), [[1, 2], [3]], strict=True):
        assert row.tolist() == expected
    assert restore([1, 2, 3])[0].index.tolist() == [0.5, 2.0]


def test_the_lengths_decide_what_two_dimensions_are():
    X = SeriesCollection(np.zeros((2, 3)))
    assert check_numbers(np.zeros((2, 3)), X)[1]
    with pytest.raises(ValueError, match=r"a series has 3\. Got 4 for each series"):
        check_numbers(np.zeros((2, 4)), X)
