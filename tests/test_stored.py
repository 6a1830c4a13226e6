"""Series that stay where they are stored: every store gives what the same series give in memory."""

import pickle

import numpy as np
import pytest
import torch
import zarr
from sklearn.model_selection import KFold, cross_val_score

from statespace import S4DClassifier, S4DRegressor, SeriesCollection, stored
from statespace.stored import StoredSeries, is_stored
from statespace.training import SeriesBatches, StoredBatches


def tiny(kind=S4DRegressor, **options):
    defaults = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    return kind(**(defaults | options))


class Recordings(torch.utils.data.Dataset):
    """Items (series, times, target), which are counted when they are read."""

    def __init__(self, *parts):
        self.parts, self.n_reads = parts, 0

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, i):
        self.n_reads += 1
        return tuple(part[i] for part in self.parts)


class Feed(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield np.ones(3), 1.0


@pytest.fixture(scope="module")
def table():
    """X (n_series, n_times, 2) with missing values, times, and a target a step."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(14, 9, 2))
    times = np.cumsum(rng.integers(1, 9, size=(14, 9)) / 8, axis=1)
    Y = np.cumsum(X[:, :, 0], axis=1)
    X[rng.random(X.shape) < 0.1] = np.nan
    Y[2, 3:5] = np.nan
    return X, times, Y


@pytest.fixture(scope="module")
def ragged():
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 12, size=14)
    X = [rng.normal(size=(n, 2)) for n in lengths]
    return X, [np.cumsum(rng.exponential(size=n)) for n in lengths], [np.cumsum(x[:, 0]) for x in X]


def on_disk(array, path, store):
    if store == "zarr":
        kept = zarr.create_array(store=str(path), shape=array.shape, dtype=array.dtype, chunks=(1, *array.shape[1:]))
        kept[:] = array
        return kept
    np.save(path.with_suffix(".npy"), array)
    return np.load(path.with_suffix(".npy"), mmap_mode="r")


def equal(model, other, X, other_X, **times):
    for name in ("x_mean_", "x_scale_", "y_mean_", "y_scale_", "time_scale_", "has_missing_", "n_channels_", "clock_"):
        if hasattr(model, name):
            np.testing.assert_array_equal(getattr(model, name), getattr(other, name))
    for row, same in zip(model.predict(X, **times), other.predict(other_X), strict=True):
        np.testing.assert_array_equal(row, same)


@pytest.mark.parametrize("store", ["zarr", "memory map"])
@pytest.mark.parametrize("per_step", [False, True])
def test_arrays_on_disk_give_the_same_bits(tmp_path, table, store, per_step):
    X, times, Y = table
    y = Y if per_step else np.nan_to_num(Y[:, -1])
    kept, kept_y = on_disk(X, tmp_path / "x", store), on_disk(y, tmp_path / "y", store)
    kept_times = on_disk(times, tmp_path / "t", store)
    model = tiny().fit(X, y, times=times)
    other = tiny().fit(kept, kept_y, times=kept_times)
    board = StoredSeries(kept, times=times)
    equal(model, other, X, board, times=times)
    assert other.predict(board).shape == y.shape
    assert other.score(board, kept_y) == model.score(X, y, times=times)


def test_lists_of_memory_maps_give_the_same_bits(tmp_path, ragged):
    X, times, Y = ragged
    kept = [on_disk(x, tmp_path / f"x{i}", "memory map") for i, x in enumerate(X)]
    weights = np.arange(len(X)) / 7
    model, other = tiny().fit(X, Y, times=times, sample_weight=weights), tiny()
    other.fit(kept, Y, times=times, sample_weight=weights)
    equal(model, other, X, StoredSeries(kept, times=times), times=times)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_a_dataset_gives_the_same_bits_in_one_pass(ragged, per_step, weighted):
    X, times, Y = ragged
    y = Y if per_step else np.array([row[-1] for row in Y])
    weights = np.arange(len(X)) / 7 if weighted else None
    data = Recordings(X, times, y)
    model = tiny(max_epochs=1).fit(X, y, times=times, sample_weight=weights)
    other = tiny(max_epochs=1).fit(data, sample_weight=weights)
    # One pass to learn from, one epoch, and the first item to see what items are. Weights ask for lengths before.
    assert data.n_reads <= (3 if weighted else 2) * len(X) + 4
    equal(model, other, X, data, times=times)
    assert other.score(data) == pytest.approx(model.score(X, y, times=times), rel=1e-14)


@pytest.mark.parametrize("per_step", [False, True])
def test_labels_on_disk(tmp_path, table, per_step):
    X, _, Y = table
    y = np.where(np.nan_to_num(Y if per_step else Y[:, -1]) > 0, 7, 3)
    kept, kept_y = on_disk(X, tmp_path / "x", "zarr"), on_disk(y, tmp_path / "y", "zarr")
    options = {"kind": S4DClassifier, "class_weight": "balanced"}
    model, other = tiny(**options).fit(X, y), tiny(**options).fit(kept, kept_y)
    np.testing.assert_allclose(other.class_weight_, model.class_weight_, rtol=1e-14)
    np.testing.assert_allclose(other.predict_proba(kept), model.predict_proba(X), rtol=1e-6)
    assert other.classes_.tolist() == [3, 7]
    assert other.score(kept, kept_y) == model.score(X, y)


def test_missing_labels_and_new_ones(table):
    X, _, Y = table
    labels = np.where(np.isnan(Y), np.nan, Y > 0)
    data = Recordings(X, labels)
    model, other = tiny(S4DClassifier).fit(X, labels), tiny(S4DClassifier).fit(data)
    np.testing.assert_array_equal(other.predict_proba(data), model.predict_proba(X))
    assert other.score(data) == model.score(X, labels)
    assert other.score(Recordings(X, np.full(Y.shape, 5))) == 0


def test_codes_and_texts(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, size=(12, 10)).astype(np.uint8)
    texts = ["".join("ACGT"[k] for k in row) for row in codes]
    y = (codes == 1).mean(axis=1)
    model = tiny(alphabet="dna").fit(texts, y)
    for data in (on_disk(codes, tmp_path / "x", "zarr"), Recordings(texts, y)):
        other = tiny(alphabet="dna").fit(data, None if isinstance(data, Recordings) else y)
        np.testing.assert_array_equal(other.predict(data), model.predict(texts))
    with pytest.raises(ValueError, match="series 1 of X has 'x' at position 2"):
        tiny(alphabet="dna").fit(Recordings(["ACG", "ACx"], [1.0, 2.0]))


def test_splitters_cut_stored_series_with_their_times(table):
    X, times, Y = table
    y = np.nan_to_num(Y[:, -1])
    expected = cross_val_score(tiny(), SeriesCollection(X, times=times), y, cv=KFold(2))
    np.testing.assert_array_equal(cross_val_score(tiny(), StoredSeries(Recordings(X, times, y)), cv=KFold(2)), expected)


def test_batches_are_those_in_memory(ragged):
    X, times, Y = ragged
    series = StoredSeries(Recordings(X, times, Y))
    gaps = [np.concatenate([[1.0], np.diff(t) / 0.5]) for t in times]
    weights = [np.arange(len(x)) / 2 for x in X]
    targets = [row[:, np.newaxis] for row in Y]
    memory = SeriesBatches(X, gaps, targets, weights=weights)
    stored = StoredBatches(series, np.array, 0.5, series.targets(), weights=weights)
    for indices, span in (([0], ()), ([3, 1, 2], ()), ([4, 5, 6], (2, 5)), ([7, 8], (1, None))):
        batch, expected = stored.batch(np.array(indices), *span), memory.batch(np.array(indices), *span)
        assert batch.keys() == expected.keys()
        for name, value in batch.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True)


def test_long_series_are_read_in_pieces(monkeypatch, ragged):
    X, times, Y = ragged
    whole = StoredSeries(Recordings(X, times, Y)).learn()
    monkeypatch.setattr(stored, "PIECE", 2)
    pieces = StoredSeries(Recordings(X, times, Y)).learn()
    for value, same in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(value, same)


def test_a_memory_map_goes_to_another_process_by_its_name(tmp_path):
    kept = on_disk(np.arange(200_000.0).reshape(2, -1), tmp_path / "x", "memory map")
    packed = pickle.dumps(StoredSeries([kept[0], kept[1]]))
    assert len(packed) > 100_000  # parts of a map are copied
    packed = pickle.dumps(StoredSeries(kept))
    assert len(packed) < 2_000
    np.testing.assert_array_equal(pickle.loads(packed).values.read(1, 5, 8), kept[1, 5:8, np.newaxis])


def bad(series=None, times=None, y=None):
    X = [np.ones((3, 1)), np.ones((2, 1)) if series is None else series]
    t = [np.arange(3.0), np.arange(2.0) if times is None else times]
    return Recordings(X, t, [0.5, 1.5] if y is None else y)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bad(np.array([[1.0], [np.inf]])), r"series 1.* contains infinity"),
        (bad(np.ones((2, 3))), "series 1 of X has 3 channels, but the first has 1"),
        (bad(np.ones((0, 1)), np.zeros(0)), "series 1 of X is empty"),
        (bad(times=np.array([1.0, 0.5])), r"series 1 must not decrease: times\[1\] = 0.5 follows 1.0"),
        (bad(times=np.array([1.0, 1.0])), "series 1 must increase"),
        (bad(times=np.arange(5.0)), "series 1 must have one entry for each of the 2 rows, got 5"),
        (bad(times=np.array(["2024-01-01", "2024-01-02"], dtype="datetime64[D]")), "must be numbers"),
        (bad(y=[np.nan, np.nan]), "NaN only"),
        (bad(y=[np.zeros(3), np.zeros(3)]), "y of series 1 must have one target for each of the 2 steps, got 3"),
        (Recordings([], []), "at least one series"),
        (Recordings([np.ones(3)], [1], [2], [3]), "Got 4 parts"),
        (Feed(), "map-style"),
    ],
)
def test_bad_items_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        tiny(validation_fraction=0).fit(data)


def test_bad_calls(table):
    X, times, Y = table
    data = Recordings(X, times, Y)
    model = tiny(max_epochs=1).fit(data)
    with pytest.raises(ValueError, match="times in its items"):
        model.predict(data, times=times)
    with pytest.raises(ValueError, match="fitted with times, and X has none"):
        model.predict(Recordings(X, Y))
    with pytest.raises(ValueError, match=r"1 features, but S4DRegressor is expecting 2"):
        model.predict(Recordings(X[..., :1], times, Y))
    with pytest.raises(ValueError, match="y to be passed"):
        tiny().fit(StoredSeries([np.lib.stride_tricks.as_strided(np.zeros((3, 1)))]))
    with pytest.raises(TypeError, match="one array"):
        np.asarray(StoredSeries(data))


def test_missing_values_are_told_when_they_are_read(table):
    X, _, Y = table
    model = tiny(max_epochs=1).fit(Recordings(np.nan_to_num(X), Y))
    with pytest.warns(UserWarning, match="fitted without any"):
        model.predict(Recordings(X, Y))


def test_what_is_stored():
    assert is_stored(Recordings([1]))
    assert is_stored(zarr.array(np.zeros((2, 3))))
    assert not any(map(is_stored, ([[1.0, 2.0]], np.zeros((2, 3)), [np.zeros(3)], [], SeriesCollection([[1.0]]))))
