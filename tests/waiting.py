"""Waits of tests: for a condition, never for a length of time."""

import time

# A safety net, not a measure: a condition that a busy machine meets only after minutes is met, and
# one that is never met fails its test instead of hanging it.
LIMIT_SECONDS = 600


def until(condition, *, process=None, expected="the condition holds"):
    """Wait until `condition()` is true, and return its value.

    Fails if `process`, a `Popen` that is to bring the condition about, ends without doing so, and
    after `LIMIT_SECONDS`. `expected` says in the failure's message what was waited for.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        # Before the condition: it may come true right before the process ends.
        ended = process is not None and process.poll() is not None
        value = condition()
        if value:
            return value
        assert not ended, f"the process ended with {process.returncode} before: {expected}"
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {expected}"
        time.sleep(0.02)
