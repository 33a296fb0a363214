import logging

from etils import epath

from bertjax.training.logs.log_file import collected_log, log_to_file


def test_log_lines_go_to_the_runs_file_and_appending_keeps_the_old(tmp_path, caplog):
    logger = logging.getLogger("bertjax.training.loop")
    for word in ("first", "second"):
        with log_to_file(epath.Path(tmp_path) / "run"):
            logger.info("%s line", word)
    text = (tmp_path / "run" / "log.txt").read_text()
    assert text.index("INFO first line") < text.index("INFO second line")
    assert caplog.messages == ["first line", "second line"]
    logger.info("after")
    assert "after" not in (tmp_path / "run" / "log.txt").read_text()


def test_what_was_logged_before_there_was_a_folder_comes_first(tmp_path):
    logger = logging.getLogger("bertjax.tasks")
    with collected_log() as earlier:
        logger.info("rows cut: %d", 3)
    with log_to_file(epath.Path(tmp_path), earlier):
        logger.info("starts")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == ["rows cut: 3", "starts"]


def test_lines_that_cannot_be_written_come_later_and_stop_nothing(tmp_path, caplog, capsys):
    logger = logging.getLogger("bertjax.training.loop")
    path = epath.Path(tmp_path) / "log.txt"
    path.mkdir()  # also to root no file to write to
    with log_to_file(epath.Path(tmp_path)):
        logger.info("first")
        logger.info("second")
        path.rmdir()
        logger.info("third")
    lines = path.read_text().splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == [
        "first",
        "second",
        "third",
        f"{path}: can be written again",
    ]
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == [
        f"{path}: cannot be written (Is a directory); training goes on"
    ]
    assert "Traceback" not in capsys.readouterr().err
