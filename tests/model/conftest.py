import pytest
from jax.experimental.pallas import tpu as pltpu

from tests.attention_kernels import rolled


@pytest.fixture
def gathered_roll(monkeypatch):
    """Let `pltpu.roll` gather: the interpreter makes operations for each row of its result.

    For the kernel of disentangled attention these are too many for XLA.
    """
    monkeypatch.setattr(pltpu, "roll", rolled)
