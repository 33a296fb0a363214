import signal

import pytest

from bertjax.errors import UserError
from bertjax.parallel import failures


def test_alone_a_failure_goes_its_way(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "BERTJAX_DISTRIBUTED", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), failures.end_together():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("error,lost", [
    (ValueError("UNKNOWN: Gloo all-reduce failed: Read error [127.0.0.1]:18137: Connection reset by peer"), True),
    (RuntimeError("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats): 1"), True),
    (RuntimeError("NCCL operation failed: remote process exited or there was a network error"), True),
    (UserError("gs://x/Gloo: cannot be read"), False),
    (ValueError("shapes do not match"), False),
    (OSError("NOT_FOUND: no such file"), False),
])  # fmt: skip
def test_what_only_says_that_another_process_is_gone_is_told_from_what_failed_here(error, lost):
    assert failures.is_lost_contact(error) == lost


def test_a_lost_process_is_no_fault_of_the_disk(tmp_path):
    from bertjax.training.checkpoint_files import checkpoint_errors

    with pytest.raises(RuntimeError, match="Gloo"), checkpoint_errors(tmp_path):
        raise RuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(UserError, match="cannot be read or written"), checkpoint_errors(tmp_path):
        raise RuntimeError("NOT_FOUND: Error opening driver")
