"""Fixtures of the models of each family."""

import pytest


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Compute with one thread: for matrices of a few numbers, threads wait for each other."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
