import threading
import time

from bertjax.compression.runtimes.worker import wait_until_quiet


def spinning(seconds):
    """A thread that looks for work in a loop, as those of a runtime after a call."""

    def spin():
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    return thread


def test_a_turn_ends_when_the_threads_of_its_runtime_sleep():
    thread = spinning(0.3)
    wait_until_quiet(longest=30)
    assert not thread.is_alive()


def test_a_runtime_whose_threads_never_sleep_is_waited_for_so_long_and_no_longer():
    thread = spinning(2.0)
    begin = time.perf_counter()
    wait_until_quiet(longest=0.1)
    assert thread.is_alive()
    assert time.perf_counter() - begin >= 0.1
    thread.join()
