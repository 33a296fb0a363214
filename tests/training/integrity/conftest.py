"""A run whose checkpoints a test may damage."""

import shutil

import pytest
from etils import epath

from tests.training.checkpoints import random_state, saved


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """A run with checkpoints of steps 3 and 4, its state and the tree of its shapes; not to touch."""
    run = epath.Path(tmp_path_factory.mktemp("whole")) / "run"
    state, target = saved(run, [(3, 1.0), (4, 0.5)], make_state=random_state)
    return run, state, target


@pytest.fixture
def run(whole_run, tmp_path):
    """A copy of the run."""
    shutil.copytree(whole_run[0], tmp_path / "run")
    return epath.Path(tmp_path) / "run"


@pytest.fixture
def target(whole_run):
    return whole_run[2]


@pytest.fixture
def state(whole_run):
    return whole_run[1]
