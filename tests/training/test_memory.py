"""A batch that does not fit into memory: halved once, with the same result, and then a clear error."""

import numpy as np
import pytest
import torch

from statespace import S4DRegressor
from statespace.models import ResidualStack
from statespace.training import SeriesBatches, fit
from statespace.training.memory import is_out_of_memory
from tests.training.test_loop import assert_weights, generator, make_data, squared_error, weights

OPTIONS = {"max_epochs": 3, "batch_size": 5, "learning_rate": 0.02, "gradient_clip": 0.5}


def make_model(**options):
    torch.manual_seed(0)
    return ResidualStack(1, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}, dropout=0.0, **options).double()


def ragged():
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(n, 1)) for n in rng.integers(3, 12, size=13)]
    targets = [np.cumsum(x, axis=0) for x in inputs]
    targets[4][:] = np.nan  # halves that count differently, one of them perhaps nothing
    return SeriesBatches(inputs, targets=targets, dtype=torch.double)


def fits(most, error=None):
    """The squared error, for which there is memory for batches of so many series."""
    sizes = []

    def loss(model, batch):
        sizes.append(len(batch["x"]))
        result = squared_error(model, batch)
        if len(batch["x"]) > most:
            raise error or torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return result

    return loss, sizes


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError("Unable to allocate 7.28 TiB for an array"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes."),
    ],
)
def test_halves_have_the_gradient_of_the_whole(error):
    whole, halved = make_model(), make_model()
    expected = fit(whole, ragged(), squared_error, generator=generator(), **OPTIONS)
    loss, sizes = fits(3, error)
    with pytest.warns(UserWarning, match=r"of 5 series did not fit .* in two halves, whose gradients are added"):
        history = fit(halved, ragged(), loss, generator=generator(), **OPTIONS)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-10)
    for name, value in halved.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-8, atol=1e-10)
    assert sizes.count(5) == 1  # tried once in the whole training
    assert max(sizes[sizes.index(5) + 1 :]) == 3


def test_dropout_and_order_are_what_they_were():
    """The failed attempt draws nothing: with halves from the start, the bits are the same."""
    from statespace.training import steps

    models = []
    for most in (3, 100):
        model = make_model()
        model.blocks[0].dropout.p = 0.5
        loss, _ = fits(most)

        def halved(self, *args, original=steps.Steps.__init__, **kwargs):
            original(self, *args, **kwargs)
            self.n_parts = 2

        with pytest.MonkeyPatch.context() as patch:
            if most == 100:
                patch.setattr(steps.Steps, "__init__", halved)
                fit(model, ragged(), loss, generator=generator(), **OPTIONS | {"batch_size": 13})
            else:
                loss, _ = fits(7)
                with pytest.warns(UserWarning, match="did not fit"):
                    fit(model, ragged(), loss, generator=generator(), **OPTIONS | {"batch_size": 13})
        models.append(weights(model))
    for name in models[0]:
        torch.testing.assert_close(models[0][name], models[1][name], rtol=0, atol=0)


def test_when_halves_do_not_fit_the_best_weights_are_kept():
    model, kept = make_model(), []
    loss, sizes = fits(100)

    def later(model, batch):
        if len(kept) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return loss(model, batch)

    message = (
        r"a batch of 5 series of up to \d+ steps does not fit into the memory of cpu even in two halves\. Lower "
        r"batch_size, d_model or n_layers, or give a chunk_length\. The best weights so far, of epoch 2, are kept\."
    )
    with pytest.raises(MemoryError, match=message), pytest.warns(UserWarning, match="did not fit"):
        fit(
            model, ragged(), later, generator=generator(), **OPTIONS | {"max_epochs": 4},
            callbacks=[lambda epoch, history, model: kept.append(weights(model))],
        )  # fmt: skip
    assert_weights(model, kept[1])


def test_one_series_cannot_be_halved():
    loss, _ = fits(0)
    with pytest.raises(
        MemoryError, match=r"a batch of 1 series of up to 9 steps does not fit into the memory of cpu\."
    ):
        fit(make_model().float(), make_data(1), loss, generator=generator())


def test_other_errors_stay_what_they_are():
    def broken(model, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        fit(make_model().float(), make_data(), broken, generator=generator())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_allocation_of_torch_that_fails_is_told():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_an_estimator_out_of_memory_has_its_best_weights(monkeypatch):
    X = np.random.default_rng(0).normal(size=(12, 6))
    model = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=3, batch_size=32, random_state=0)
    backward, calls = torch.Tensor.backward, []

    def failing(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise MemoryError
        return backward(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", failing)
    with pytest.raises(MemoryError, match="even in two halves"), pytest.warns(UserWarning, match="did not fit"):
        model.fit(X, X.sum(axis=1))
    assert len(model.history_) == 2
    assert np.isfinite(model.predict(X)).all()
