"""Model files from strangers and from the past, and the faults of disks and processes."""

import base64
import copy
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import statespace
from statespace import KalmanRegressor, MambaClassifier, S4DRegressor, persistence
from statespace.forecasting import KalmanForecaster
from statespace.kalman import LocalTrend, Matern, Seasonal
from statespace.persistence import FileError, load, save

GOLDEN = json.loads((Path(__file__).parent / "golden" / "format_1.json").read_text())


def golden_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 5))
    return X, np.cumsum(rng.exponential(size=(6, 5)), axis=1)


@pytest.fixture(scope="module")
def deep():
    X, times = golden_data()
    model = S4DRegressor(d_model=2, n_layers=1, d_state=2, max_epochs=1, random_state=0, device="cpu")
    return model.fit(X, X.cumsum(axis=1), times=times)


@pytest.fixture(scope="module")
def kalman():
    X, times = golden_data()
    process = LocalTrend() + Seasonal(period=3.0, harmonics=1)
    return KalmanRegressor(process, optimizer=None, noise_variance=0.5).fit(times[0][:, None], X[0])


@pytest.fixture(scope="module")
def saved(deep, kalman, tmp_path_factory):
    """Metadata and arrays of files that are whole."""
    parts = {}
    for name, model in {"deep": deep, "kalman": kalman, "stream": deep.stream()}.items():
        path = tmp_path_factory.mktemp("saved") / name
        model.save(path)
        with safe_open(path, framework="np") as file:
            metadata, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        parts[name] = path.read_bytes(), json.loads(metadata["document"]), metadata, arrays
    return parts


def write(path, document, metadata, arrays):
    """A file as an attacker writes it: with a checksum that fits."""
    text = document if isinstance(document, str) else json.dumps(document)
    save_file(arrays, path, metadata | {"document": text, "checksum": persistence._checksum(text, arrays)})


# The past.


def test_files_of_format_1_still_load(tmp_path):
    X, times = golden_data()
    answers = {
        "S4DRegressor": lambda m: m.predict(X, times=times),
        "MambaClassifier": lambda m: m.predict_proba(X),
        "KalmanRegressor": lambda m: np.stack(m.predict(times[1][:, None], return_std=True)),
    }
    for name, answer in answers.items():
        path = tmp_path / name
        path.write_bytes(zlib.decompress(base64.b85decode("".join(GOLDEN[name]["file"]))))
        model = load(path)
        assert type(model).__name__ == name
        np.testing.assert_allclose(answer(model), GOLDEN[name]["answer"], rtol=1e-9, atol=1e-12)
        # Saved again they are of this format, and have learned to be tried.
        model.save(path)
        np.testing.assert_array_equal(answer(load(path)), answer(model))


# The stored prediction.


def test_a_model_that_computes_something_else_here_is_refused(saved, tmp_path, monkeypatch):
    _, document, metadata, arrays = saved["deep"]
    write(tmp_path / "model", document, metadata, arrays)
    load(tmp_path / "model")
    changed = arrays | {"y_scale_": 1.01 * arrays["y_scale_"]}
    write(tmp_path / "model", document, metadata, changed)
    with pytest.raises(FileError, match=r"computes something else here .* load\(path, check=False\)"):
        load(tmp_path / "model")
    assert load(tmp_path / "model", check=False).y_scale_ == changed["y_scale_"]
    # Rounding, as between machines, is no difference.
    write(tmp_path / "model", document, metadata, arrays | {"y_scale_": (1 + 1e-9) * arrays["y_scale_"]})
    load(tmp_path / "model")


def test_classifiers_and_symbols_are_tried_too(tmp_path):
    sequences, labels = ["ACGTA", "GGCCA", "TTACG", "CATGC"], ["x", "y", "x", "y"]
    model = MambaClassifier(alphabet="dna", d_model=2, n_layers=1, d_state=2, max_epochs=1, random_state=0)
    model.fit(sequences, labels).save(tmp_path / "model")
    with safe_open(tmp_path / "model", framework="np") as file:
        assert {"probe.given.x", "probe.answer.probabilities"} <= set(file.keys())
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(sequences), model.predict_proba(sequences))


@pytest.mark.parametrize("parameters", ["shared", "separate"])
def test_the_matrices_of_a_process_are_tried_too(parameters, tmp_path, monkeypatch):
    t = np.arange(6.0)
    model = KalmanRegressor(LocalTrend() + Matern(nu=1.5), optimizer=None, parameters=parameters)
    model.fit([t[:, None], t[:5, None]], [np.sin(t), np.cos(t[:5])]).save(tmp_path / "model")
    y = pd.Series(np.sin(t))
    save(KalmanForecaster(LocalTrend() + Matern(nu=1.5), optimizer=None).fit(y), tmp_path / "forecaster")
    for name in ("model", "forecaster"):
        load(tmp_path / name)
    # As if a later version meant something else by the same parameters.
    noise = Matern.process_noise
    monkeypatch.setattr(Matern, "process_noise", lambda self, dt: (1 + 1e-4) * noise(self, dt))
    for name in ("model", "forecaster"):
        with pytest.raises(FileError, match="computes something else here"):
            load(tmp_path / name)
        load(tmp_path / name, check=False)


# Strangers.


BOMBS = {
    "width": ("model", "d_model", 10**9),
    "states": ("model", "layer_options", {"d_state": 2 * 10**8}),
    "layers": ("model", "n_layers", 10**12),
    "window": ("model", "layer_options", {"window": 10**12}),
    "negative": ("model", "n_layers", -1),
    "infinite": ("model", "d_model", 1e400),
    "text": ("model", "d_model", "64"),
    "no layer": ("model", "layer", "os.system"),
    "class": ("learned", "__class__", "S4DRegressor"),
    "method": ("learned", "predict", "print"),
    "private": ("learned", "_check_streamable", None),
    "parameter": ("params", "__init__", 1),
}


@pytest.mark.parametrize("name", BOMBS)
def test_claims_are_held_against_the_arrays(name, saved, tmp_path):
    _, document, metadata, arrays = saved["deep"]
    part, key, value = BOMBS[name]
    document = copy.deepcopy(document)
    document["state"][part][key] = value
    write(tmp_path / "model", document, metadata, arrays)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(FileError, match="does not describe a whole S4DRegressor"):
        load(tmp_path / "model")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[" * 100_000, "RecursionError"),
        ("1" * 10_000, "ValueError"),
        ("null", "TypeError"),
        ('{"class": "S4DRegressor", "state": 3, "kinds": {}}', "AttributeError"),
        ('{"class": "S4DRegressor", "state": {}, "kinds": {"x_mean_": "O"}}', "no kind of array is called 'O'"),
        ('{"class": "S4DRegressor", "state": {}, "kinds": {"x_mean_": "U1000000000"}}', "no kind of array"),
        ('{"class": "S4DRegressor", "state": {}, "kinds": {"x_mean_": "complex"}}', "no kind of array"),
        ('{"class": "../S4DRegressor", "state": {}, "kinds": {}}', "holds a '../S4DRegressor'"),
        ('{"class": "save", "state": {}, "kinds": {}}', "holds a 'save'"),
        ('{"class": "__import__", "state": {}, "kinds": {}}', "holds a '__import__'"),
        ('{"class": null, "state": {}, "kinds": {}}', "holds a None"),
    ],
)
def test_descriptions_that_are_none(document, message, saved, tmp_path):
    _, _, metadata, arrays = saved["deep"]
    write(tmp_path / "model", document, metadata, arrays)
    with pytest.raises(FileError, match=message):
        load(tmp_path / "model")


def test_headers_that_lie(saved, tmp_path):
    path, whole = tmp_path / "model", saved["deep"][0]
    for size in (2**63, 2**40, 2**27, len(whole), 0):
        path.write_bytes(size.to_bytes(8, "little") + whole[8:])
        with pytest.raises(FileError):
            load(path)
    for header in (
        b'{"a":{"dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F64","shape":[4],"data_offsets":[0,99999999999]}}',
        b'{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}',
        b"{" * 5000,
    ):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        with pytest.raises(FileError):
            load(path)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=8),
    st.sampled_from(["../../etc/passwd", "os.system", "__class__", "\x00", "\ud800", "{}", "S4DRegressor"]),
    st.just([[[]]]), st.just({"class": "KalmanStream", "params": {}}), st.lists(st.integers(), max_size=3),
)  # fmt: skip


def places(value, path=()):
    """Where the leaves and branches of a description are."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@pytest.mark.parametrize("name", ["deep", "kalman", "stream"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_description_with_anything_in_it_loads_or_is_refused(name, saved, tmp_path, data):
    _, document, metadata, arrays = saved[name]
    document = copy.deepcopy(document)
    *way, last = data.draw(st.sampled_from([path for path in places(document) if path]))
    inner = document
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(JUNK)
    else:
        del inner[last]
    text = json.dumps(document)
    write(tmp_path / "model", text, metadata, arrays)
    try:
        load(tmp_path / "model", check=data.draw(st.booleans()))
    except FileError as error:
        message = str(error)
    else:
        return
    assert len(message) < 2000


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_that_were_cut_or_flipped_are_refused(saved, tmp_path, data):
    whole = saved["kalman"][0]
    if data.draw(st.booleans()):
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        content = bytearray(whole)
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4, unique=True)):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(FileError):
        load(tmp_path / "model")


@pytest.mark.parametrize("name", ["deep", "kalman", "stream"])
def test_arrays_of_other_shapes_or_types_are_refused_or_load(name, saved, tmp_path):
    _, document, metadata, arrays = saved[name]
    for key in arrays:
        others = [arrays[key].astype(np.int8), np.zeros((0,)), np.zeros((3, 0, 2)), arrays[key][..., None], None]
        for other in others:
            changed = {k: v for k, v in arrays.items() if k != key} | ({} if other is None else {key: other})
            write(tmp_path / "model", document, metadata, changed)
            try:
                load(tmp_path / "model")
            except FileError:
                continue


def test_no_module_is_imported_for_a_name_in_a_file(saved, tmp_path):
    _, document, metadata, arrays = saved["deep"]
    write(tmp_path / "model", document | {"class": "antigravity"}, metadata, arrays)
    with pytest.raises(FileError):
        load(tmp_path / "model")
    assert "antigravity" not in sys.modules


# Disks and processes.


def test_a_full_disk_leaves_the_old_file(deep, tmp_path):
    deep.save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match=r"could not be written to .*model\. The file that is there is as it was"):
            deep.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model").read_bytes() == before


SAVER = """
import sys, numpy as np
from statespace.persistence import replace
content = [bytes([k]) * 4_000_000 for k in range(2)]
replace(sys.argv[1], content[0])
print("ready", flush=True)
while True:
    for part in content:
        replace(sys.argv[1], part)
"""


def test_a_kill_while_saving_leaves_a_whole_file(tmp_path):
    for delay in (0.0, 0.003, 0.011, 0.02):
        process = subprocess.Popen([sys.executable, "-c", SAVER, tmp_path / "model"], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.kill()
        process.communicate()
        content = (tmp_path / "model").read_bytes()
        assert len(content) == 4_000_000
        assert len(set(content)) == 1


def test_a_folder_that_is_not_there_or_is_the_path_itself(deep, tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be written"):
        deep.save(tmp_path / "nowhere" / "model")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="could not be written"):
        deep.save(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="no model file"):
        statespace.load(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
