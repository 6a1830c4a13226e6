"""The loaders of the benchmarks' real tasks: shapes, splits, and how beats are counted."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))

import tasks

SHIPPED = ("japanese_vowels", "gun_point", "italy_power_demand")
READ = ("cascaded_tanks", "dryer", "heating_system", "oil_temperature", "light_curves", "ecg_beats", "promoters")
SIZES = {
    "japanese_vowels": (270, 370), "gun_point": (50, 150), "italy_power_demand": (67, 1029), "cascaded_tanks": (1, 1),
    "ecg_beats": (42, 18), "promoters": (3071, 768),
}  # fmt: skip


def labels(*stretches, length=2000):
    row = np.zeros(length, dtype=int)
    for middle in stretches:
        row[middle - 2 : middle + 3] = 1
    return row


@pytest.mark.parametrize("name", SHIPPED + READ)
def test_parts_fit_together(name, data_path):
    if name in READ:
        data_path("ucr_uea")
    task = tasks.TASKS[name]()
    for part, size in zip((task.train, task.test), SIZES.get(name, (None, None)), strict=True):
        assert size in (None, len(part))
        assert len(part.y) == len(part)
        if part.times is not None:
            assert all(len(t) == len(x) and np.all(np.diff(t) > 0) for t, x in zip(part.times, part.X, strict=True))
        if task.per_step:
            assert all(len(x) == len(y) for x, y in zip(part.X, part.y, strict=True))
    if task.options.get("alphabet") is None:
        assert all(x.dtype == np.float64 and x.ndim == 2 for x in task.train.X)


def test_no_promoter_is_on_both_sides(data_path):
    data_path("dna_cnnprom")
    task = tasks.promoters()
    assert not set(task.train.X) & set(task.test.X)


def test_hidden_magnitude_is_not_shown(data_path):
    data_path("macho_lightcurves")
    part = tasks.light_curves().train
    assert all(np.isnan(x[-1, 0]) and not np.isnan(x[:-1]).any() for x in part.X)
    np.testing.assert_allclose([x[:-1].mean() for x in part.X], 0, atol=1e-9)


def test_take_keeps_rows_together():
    part = tasks.Part([np.full((n, 1), n) for n in (2, 3, 4)], np.array([2, 3, 4]), [np.arange(n) for n in (2, 3, 4)])
    taken = part.take([2, 0])
    assert [len(x) for x in taken.X] == [len(t) for t in taken.times] == taken.y.tolist() == [4, 2]


def test_beats_are_counted_once():
    true = labels(100, 300, 500, 700)
    assert tasks.beats_f1([true], [true]) == 1
    # 4 steps are 44 ms, 5 are 56; two of three found beats are met, of four true ones.
    assert tasks.beats_f1([true], [labels(104, 305, 500)]) == pytest.approx(2 * 2 / (4 + 3))
    assert tasks.beats_f1([true], [labels()]) == 0


def test_stretches_within_a_fifth_of_a_second_are_joined():
    np.testing.assert_array_equal(tasks.middles(labels(100, 114, 300)), [107, 300])
    assert len(tasks.middles(labels(100, 130))) == 2


def test_absent_data_are_named(monkeypatch):
    monkeypatch.delenv("STATESPACE_DATA", raising=False)
    with pytest.raises(tasks.Missing, match="STATESPACE_DATA is not set"):
        tasks.dryer()
