"""Fixtures of the reference models."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Compute with one thread.

    For matrices of a few numbers, threads wait for each other: on two busy cores the tests of this
    folder take 12 s instead of 2 s.
    """
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
