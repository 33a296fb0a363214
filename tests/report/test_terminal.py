import logging

from bertjax.progress import silent
from bertjax.report.terminal import log_to_terminal, terminal_progress


def test_without_a_terminal_there_is_no_bar(capsys):
    with terminal_progress() as progress:
        assert progress is silent


def test_on_a_terminal_a_bar_shows_rate_and_what_is_left(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal_progress() as progress:
        for done in range(1, 5):
            progress("train", done, 4)
    output = capsys.readouterr().err
    assert "train" in output
    assert "4/4" in output
    assert "it/s" in output or "s/it" in output


def test_each_stage_has_its_bar_also_one_that_comes_again(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal_progress() as progress:
        for stage, done, total in (
            ("read", 3, 3),
            ("train tokenizer", 0, 0),
            ("read", 1, 2),
            ("read", 2, 2),
        ):
            progress(stage, done, total)
    output = capsys.readouterr().err
    assert [mark for mark in ("3/3", "train tokenizer: 0it", "2/2") if mark not in output] == []


def test_log_lines_go_to_stderr_and_to_no_other_handler(capsys, caplog):
    logger = logging.getLogger("bertjax.training.loop")
    with caplog.at_level(logging.INFO, "bertjax"):
        with log_to_terminal():
            logger.info("a step")
        logger.info("after")
    said = capsys.readouterr().err
    assert "INFO a step" in said
    assert "after" not in said
    assert caplog.messages == ["after"]


def test_of_a_process_that_is_not_the_first_only_warnings_are_heard_with_its_name(capsys):
    logger = logging.getLogger("bertjax.training.loop")
    with log_to_terminal("process 1 of 4"):
        logger.info("a step")
        logger.warning("an odd batch")
    output = capsys.readouterr().err
    assert "a step" not in output
    assert output.startswith("process 1 of 4: ")
    assert "an odd batch" in output
