"""What is compiled is said in the log before it is."""

import logging

from bertjax.parallel.announce import announce_compilation, announce_once


def test_it_is_said_each_time_or_once_in_a_process(caplog):
    caplog.set_level(logging.INFO, logger="bertjax")
    announce_once.cache_clear()
    for _ in range(2):
        announce_compilation("the step")
        announce_once("the words")
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["compiling the step", "compiling the words", "compiling the step"]
