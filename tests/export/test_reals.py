"""Complex arithmetic in reals, and elementary functions that keep their digits, against torch's own and mpmath."""

import mpmath
import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from statespace.export import reals
from statespace.export.reals import InReals

HARD = [0.0, 1e-300, 1e-17, -1e-9, 3e-4, -0.7, 1.5, -30.0, 700.0, -800.0]


class Everything(torch.nn.Module):
    def forward(self, x, y, angle):
        a, b = torch.view_as_complex(x), torch.view_as_complex(y)
        turn = torch.polar(torch.ones_like(angle), angle)
        c = torch.complex(angle, 2 * angle).to(torch.complex128)
        z = (a * b - b / a + a.conj() * turn + 2.5 * a - c / 3 + (1 - b) * (1j * a)).unsqueeze(0)
        z = torch.cat([z, z.exp(), torch.expm1(z / 10), 1 / z, -z])
        return torch.view_as_real(z.sum(-1)), (z @ z.mT).real, z[1:, :2].imag, z.mean(0).real


def test_every_operation_equals_torchs_own():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 2, dtype=torch.float64, generator=g) for _ in range(2))
    angle = torch.randn(3, dtype=torch.float64, generator=g)
    program = torch.export.export(Everything(), (x, y, angle)).run_decompositions()
    found = InReals(program.module()).run(x, y, angle)
    for answer, expected in zip(found, Everything()(x, y, angle), strict=True):
        assert not answer.is_complex()
        torch.testing.assert_close(answer, expected, rtol=1e-13, atol=1e-13)


def test_numbers_are_not_written_in_single_precision():
    """The term that an RMS norm adds stands as a number in the graph, where ONNX would keep seven digits of it."""
    norm, x = torch.nn.RMSNorm(3, eps=1e-5, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    program = torch.export.export(norm, (x,)).run_decompositions()
    graph = make_fx(InReals(program.module()).run)(x).graph
    numbers = [number for node in graph.nodes for number in node.args if isinstance(number, float)]
    assert all(float(np.float32(number)) == number for number in numbers)


def test_an_operation_without_a_rule_is_named():
    class Unknown(torch.nn.Module):
        def forward(self, x):
            return torch.view_as_complex(x).cumprod(0).real

    program = torch.export.export(Unknown(), (torch.ones(3, 2),)).run_decompositions()
    with pytest.raises(NotImplementedError, match="cumprod"):
        InReals(program.module()).run(torch.ones(3, 2))


@pytest.mark.parametrize(("ours", "true"), [(reals._expm1, mpmath.expm1), (reals._log1p, mpmath.log1p)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_cancels(ours, true, dtype):
    values = torch.tensor([x for x in HARD if ours is reals._expm1 or x > -1], dtype=dtype)
    if dtype == torch.float32:
        values = values[values.abs() < 80]
    expected = np.array([float(true(mpmath.mpf(x))) for x in values.tolist()])
    rtol = 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(ours(values).double().numpy(), expected, rtol=rtol, atol=0)


def test_the_complex_exponential_near_one():
    real, imag = (torch.tensor(v, dtype=torch.float64) for v in ([1e-12, -1e-9, -50.0], [1e-9, -1e-12, 3.0]))
    found = reals._expm1_complex(reals.Pair(real, imag))
    for a, b, x, y in zip(real.tolist(), imag.tolist(), found.real.tolist(), found.imag.tolist(), strict=True):
        with mpmath.workdps(40):
            true = mpmath.exp(mpmath.mpc(a, b)) - 1
        assert x == pytest.approx(float(true.real), rel=1e-14)
        assert y == pytest.approx(float(true.imag), rel=1e-14)


def test_softplus_logaddexp_gelu_and_erf():
    x = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    torch.testing.assert_close(reals._softplus(x), torch.nn.functional.softplus(x, threshold=200), rtol=1e-14, atol=0)
    torch.testing.assert_close(reals._logaddexp(x, -x / 3), torch.logaddexp(x, -x / 3), rtol=1e-14, atol=0)
    torch.testing.assert_close(reals._gelu(x), torch.nn.functional.gelu(x), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(reals._erf(x), torch.erf(x), rtol=0, atol=2e-14)
