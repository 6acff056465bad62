"""Order statistics of a stream equal those of the sorted whole, bit for bit."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.data.order_statistics import order_key, order_statistics, percentiles, value_of


def pieces(values: np.ndarray, size: int = 7) -> Callable[[], Iterable[np.ndarray]]:
    return lambda: iter([values[i : i + size] for i in range(0, len(values), size)])


FLOATS = st.lists(
    st.one_of(st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, 1.0])), min_size=1
)


@given(values=FLOATS)
def test_keys_keep_the_order_and_can_be_undone(values: list[float]) -> None:
    array = np.array(values)
    keys = order_key(array)
    assert array[np.argsort(keys)].tolist() == sorted(values)
    assert [value_of(int(k)) for k in keys] == values


@given(values=FLOATS, collect=st.sampled_from([0, 1, 3, 1000]))
def test_every_rank_is_found(values: list[float], collect: int) -> None:
    array = np.array(values)
    found = order_statistics(pieces(array), len(array), range(len(array)), collect=collect)
    assert found == sorted(values)


@pytest.mark.parametrize("collect", [0, 50, 10**6])
@pytest.mark.parametrize("ties", [False, True])
def test_percentiles_equal_numpy(collect: int, ties: bool) -> None:
    values = np.random.default_rng(0).normal(size=5001) * 1e3
    values = np.round(values, -3) if ties else values
    q = [0, 2, 50, 97.3, 100]
    found = percentiles(pieces(values, 501), len(values), q, collect=collect)
    np.testing.assert_allclose(found, np.percentile(values, q), rtol=1e-14)


def test_a_long_stream_is_never_held() -> None:
    """With a small allowance, passes are repeated instead of keeping values."""
    values = np.random.default_rng(1).normal(size=20_000)
    passes = []

    def stream() -> Iterable[np.ndarray]:
        passes.append(1)
        return pieces(values, 1000)()

    order_statistics(stream, len(values), [400, 19_600], collect=1000)
    assert len(passes) == 2  # one histogram, one collection of two small bins
