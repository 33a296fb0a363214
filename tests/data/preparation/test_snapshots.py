import dataclasses
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from etils import epath

from bertjax.cli.main import main
from bertjax.data.preparation import snapshots
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.manifest import read_manifest
from bertjax.data.records.summary import summarize
from bertjax.errors import UserError
from bertjax.progress import silent
from tests import interrupted_prepare, postgresql
from tests.data.preparation.corpora import config_of, digests
from tests.postgresql import PASSWORD
from tests.waiting import until

pytest.importorskip("sqlalchemy")

ROOT = Path(__file__).parents[3]
WORK = ".work"


def make_documents(count):
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    documents = []
    for _ in range(count):
        sentences = [" ".join(rng.choices(words, k=10)) + "." for _ in range(8)]
        documents.append(" ".join(sentences))
    return documents


DOCUMENTS = make_documents(150)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "a.db", [*DOCUMENTS, None, "", None])


def write(path, documents):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO docs (text) VALUES (?)", [(d,) for d in documents])
    connection.close()
    return path


def change(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def of(path, rest="table=docs"):
    return f"sql:sqlite:///{path}?{rest}"


def preparation(*corpus, **data):
    return config_of("", **data).replace(data={"corpus": tuple(map(str, corpus))})


def test_a_query_gives_the_same_bytes_as_a_file_of_its_texts(file, tmp_path):
    rest = "query=SELECT id, text FROM docs ORDER BY id DESC"
    lines = [json.dumps({"text": document}) + "\n" for document in DOCUMENTS]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    expected = prepare(preparation(tmp_path / "a.jsonl"), tmp_path / "file")
    manifest = prepare(preparation(of(file, rest)), tmp_path / "sql")
    assert digests(tmp_path / "sql") == digests(tmp_path / "file")
    assert manifest.counts == {**expected.counts, "null_documents": 2}
    assert not (tmp_path / "sql" / WORK).exists()


@pytest.mark.slow
def test_several_tables_stand_beside_files(tmp_path):
    prepare(preparation(of(write(tmp_path / "all.db", DOCUMENTS))), tmp_path / "one")
    first = of(write(tmp_path / "first.db", DOCUMENTS[:50]))
    second = of(write(tmp_path / "second.db", DOCUMENTS[50:90]), "query=SELECT text FROM docs")
    lines = [json.dumps({"text": document}) + "\n" for document in DOCUMENTS[90:]]
    (tmp_path / "rest.jsonl").write_text("".join(lines))
    config = preparation(first, tmp_path / "rest.jsonl", second)
    manifest = prepare(config, tmp_path / "three")
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert set(manifest.snapshots) == {first, second}
    assert [facts["rows"] for facts in manifest.snapshots.values()] == [50, 40]


def test_the_manifest_tells_rows_bytes_and_checksum_of_the_snapshot(file, tmp_path, capsys):
    config, folder = preparation(of(file)), epath.Path(tmp_path / "out")
    manifest = prepare(config, folder)
    # Taken again elsewhere, the snapshot of the same table has the same bytes.
    (name,) = manifest.snapshots
    _, again = snapshots.take_snapshots(
        config, epath.Path(tmp_path / "x"), [source_of(name)], silent
    )
    (path,) = (tmp_path / "x" / WORK / "snapshots").glob("*.parquet")
    facts = manifest.snapshots[name]
    assert facts == dataclasses.asdict(again[name])
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["file_bytes"] == path.stat().st_size
    assert (facts["rows"], facts["null_rows"]) == (151, 2)
    assert facts["text_bytes"] == sum(map(len, DOCUMENTS))
    assert pq.read_table(path).column("text").to_pylist() == [*DOCUMENTS, ""]
    assert read_manifest(folder) == manifest
    line = f"snapshot of {of(file)}: 151 rows, 2 with NULL left out"
    assert line in summarize(folder)


def source_of(name):
    return snapshots.Source(name, "sql")


def test_a_finished_folder_does_not_ask_the_database(file, tmp_path, monkeypatch):
    config = preparation(of(file))
    manifest = prepare(config, tmp_path / "out")
    file.unlink()
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert prepare(config, tmp_path / "out") == manifest
    other = preparation(of(file, "query=SELECT text FROM docs LIMIT 9"))
    with pytest.raises(UserError, match=r"made with data\.corpus"):
        prepare(other, tmp_path / "out")


def test_row_groups_are_work_units_and_memory_is_theirs(tmp_path):
    # 30 MB, of which a unit of work is 2 MB.
    path = write(tmp_path / "a.db", [f"{i} " + "word " * 20_000 for i in range(300)])
    config, folder = preparation(of(path)), epath.Path(tmp_path / "out")
    files, taken = snapshots.take_snapshots(config, folder, [source_of(of(path))], silent)
    metadata = pq.read_metadata(files[0].name)
    assert metadata.num_row_groups == 15
    assert files[0].size == taken[of(path)].text_bytes > 30_000_000
    group = metadata.row_group(0).column(0)
    assert not group.is_stats_set
    assert group.total_compressed_size < 100_000


# In the order of the writes: the plan, the snapshot, its facts, and what depends on them.
@pytest.mark.slow
@pytest.mark.parametrize("action,ending,count", [
    ("kill", ".json", 1), ("kill", ".parquet", 1), ("kill-after", ".parquet", 1), ("kill", ".json", 2),
    ("kill-after", ".json", 2), ("kill", "", 9),
])  # fmt: skip
def test_after_a_kill_the_same_command_ends_with_the_same_bytes(
    file, tmp_path, action, ending, count
):
    config = preparation(of(file))
    prepare(config, tmp_path / "expected")
    process = interrupted_prepare.start(config, tmp_path / "out", action, ending, count)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (tmp_path / "out" / "manifest.json").exists()
    whole = list((tmp_path / "out" / WORK).glob("snapshots/*.json"))
    if (action, ending, count) in [("kill-after", ".json", 2), ("kill", "", 9)]:
        # The snapshot is whole now: the database is not needed.
        assert len(whole) == 1
        file.unlink()
    else:
        assert not whole
    prepare(config, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


@pytest.mark.slow
def test_a_snapshot_that_is_whole_is_kept_when_the_table_changes(file, tmp_path):
    config = preparation(of(file))
    prepare(config, tmp_path / "expected")
    process = interrupted_prepare.start(config, tmp_path / "out", "kill", "done.json", 1)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    change(file, "DELETE FROM docs WHERE id > 20")
    prepare(config, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


ENDLESS = (
    "query=WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT (SELECT rows FROM size))"
    " SELECT 'Text ' || i || ' of the endless table. And a second sentence, ' || hex(randomblob(200)) AS text FROM n"
)


def test_half_a_snapshot_is_never_taken_for_a_whole_one(file, tmp_path):
    change(file, "CREATE TABLE size (rows INTEGER)")
    change(file, "INSERT INTO size VALUES (1000000000000)")
    config = preparation(of(file, ENDLESS))
    process = interrupted_prepare.start(config, tmp_path / "out")
    folder = tmp_path / "out" / WORK / "snapshots"
    # It never ends, so some of it is on the disk, and the rest is not.
    until(
        lambda: [p for p in folder.glob("*.unfinished") if p.stat().st_size > 100_000],
        process=process,
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list(folder.glob("*.json")) + list(folder.glob("*.parquet"))
    change(file, "UPDATE size SET rows = 200")
    manifest = prepare(config, tmp_path / "out")
    assert manifest.counts["documents_read"] == 200
    (facts,) = manifest.snapshots.values()
    assert facts["rows"] == 200


def test_a_snapshot_of_another_size_is_refused(file, tmp_path):
    config, sources = preparation(of(file)), [source_of(of(file))]
    snapshots.take_snapshots(config, epath.Path(tmp_path / "out"), sources, silent)
    (path,) = (tmp_path / "out" / WORK / "snapshots").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=r"\.parquet: found [\d,]+ bytes, expected [\d,]+, as were written"
    ):
        prepare(config, tmp_path / "out")


@pytest.mark.parametrize("wrong,message", [
    ("table=dosc", "found no table dosc"),
    ("query=SELECT CASE WHEN id < 100 THEN text ELSE id END AS text FROM docs", "row 100, text: found a value of type int"),
])  # fmt: skip
def test_after_a_mistake_the_corrected_command_takes_the_same_folder(
    file, tmp_path, wrong, message
):
    folder = tmp_path / "out"
    good = write(tmp_path / "good.db", DOCUMENTS[:9])
    with pytest.raises(UserError) as caught:
        prepare(preparation(of(good), of(file, wrong)), folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    left = [p for p in folder.rglob("*") if p.is_file()]
    # What a wrong value ends comes late: the other snapshot is kept.
    assert len(left) in (0, 2)
    assert {path.suffix for path in left} <= {".json", ".parquet"}
    if left:
        good.unlink()
    prepare(preparation(of(good), of(file)), folder)


@pytest.mark.parametrize("rest,found", [
    ("query=SELECT text FROM docs WHERE id > 900", "0 rows with an empty text and 0 with NULL"),
    ("query=SELECT text FROM docs WHERE id > 150", "1 rows with an empty text and 2 with NULL"),
])  # fmt: skip
def test_a_result_without_text_is_refused_and_nothing_is_left(file, tmp_path, rest, found):
    with pytest.raises(UserError, match=f"found {found}, expected at least one row with text"):
        prepare(preparation(of(file, rest)), tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_the_verb_ends_with_one_line_and_status_2(file, tmp_path, capsys):
    words = ["prepare", "tiny", "--output-dir", str(tmp_path / "out"), "--data.corpus"]
    for name in (
        of(file, "table=dosc"),
        of(tmp_path / "b.db"),
        "sql:postgresql://u:secret@127.0.0.1:1/d?table=t",
    ):
        assert main([*words, name]) == 2
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1
        assert shown.err.startswith("bertjax: data.corpus sql:")
        assert "secret" not in shown.out + shown.err


def test_help_and_a_mistyped_option_show_no_password(tmp_path, capsys):
    name = "sql:postgresql://u:secret@h/d?table=t"
    path = tmp_path / "c.py"
    path.write_text(
        "from bertjax.config import Config, DataConfig\n"
        f"def get_config():\n    return Config(data=DataConfig(corpus=({name!r},)))\n"
    )
    with pytest.raises(SystemExit):
        main(["prepare", str(path), "--help"])
    assert main(["prepare", "tiny", f"--data.corpse={name}"]) == 2
    shown = capsys.readouterr()
    assert "postgresql://u@h" in shown.out
    assert "secret" not in shown.out + shown.err


@pytest.fixture(scope="module")
def server():
    with postgresql.server() as running:
        with running.connect() as connection:
            connection.execute("CREATE TABLE docs (id int PRIMARY KEY, text text)")
            rows = list(enumerate(DOCUMENTS, 1))
            connection.cursor().executemany("INSERT INTO docs VALUES (%s, %s)", rows)
            connection.execute("GRANT SELECT ON docs TO writer")
        yield running


def at(server, rest):
    return f"sql:postgresql://writer:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/postgres?{rest}"


def traces(folder):
    """Return the files that have the password, in any form, in their bytes."""
    forms = [PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), json.dumps(PASSWORD)[1:-1]]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(form.encode() in path.read_bytes() for form in forms):
            found.append(path)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "beam"])
def test_postgresql_a_preparation_by_the_verb_writes_no_password(server, tmp_path, runner):
    lines = [json.dumps({"text": document}) + "\n" for document in DOCUMENTS]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    options = [
        "--data.num-shards",
        "2",
        "--data.validation-fraction",
        "0.1",
        "--tokenizer.vocab-size",
        "400",
        "--data.workers",
        "2",
    ]
    verb = [sys.executable, "-m", "bertjax.cli.main", "prepare", "tiny", *options, "--output-dir"]
    beam = ["--runner", "beam", "--", "--runner=DirectRunner", "--direct_running_mode=in_memory"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    name = at(server, "query=SELECT text FROM docs")
    process = subprocess.Popen(
        [*verb, str(tmp_path / "sql"), "--data.corpus", name, *(beam if runner == "beam" else [])],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    plan = tmp_path / "sql" / WORK / "plan.json"
    until(plan.exists, process=process)
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    assert "sql:postgresql://writer@127.0.0.1" in listed
    assert quote(PASSWORD, safe="") not in listed
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "snapshot of sql:postgresql://writer@127.0.0.1" in output
    assert quote(PASSWORD, safe="") not in output
    subprocess.run(
        [*verb, str(tmp_path / "file"), "--data.corpus", str(tmp_path / "a.jsonl")],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert digests(tmp_path / "sql") == digests(tmp_path / "file")
    assert not traces(tmp_path)


@pytest.mark.slow
def test_postgresql_killed_in_the_midst_of_the_snapshot_it_goes_on_and_nothing_has_the_password(
    server, tmp_path
):
    with server.connect() as connection:
        connection.execute(
            "CREATE TABLE large AS SELECT i, 'Text ' || md5(i::text) || repeat(' has some words.', 150) AS text"
            " FROM generate_series(1, 2000) i"
        )
        connection.execute("GRANT SELECT ON large TO writer")
        connection.commit()
        # The last row waits for this lock, so the snapshot cannot end.
        held = "SELECT text FROM large WHERE i < 2000 OR pg_advisory_xact_lock_shared(7)::text = ''"
        connection.execute("SELECT pg_advisory_lock(7)")
        connection.commit()
        config = preparation(at(server, f"query={held}"), workers=2)
        process = subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(tmp_path / "out"), config.data.corpus[0]], cwd=ROOT
        )
        folder = tmp_path / "out" / WORK / "snapshots"
        until(
            lambda: [p for p in folder.glob("*.unfinished") if p.stat().st_size > 1000],
            process=process,
        )
        process.kill()
        process.wait()
        assert {path.suffix for path in folder.iterdir()} == {".unfinished"}
        assert not traces(tmp_path)
        connection.execute("SELECT pg_advisory_unlock(7)")
        connection.commit()
    manifest = prepare(config, tmp_path / "out")
    assert manifest.counts["documents_read"] == 2000
    assert not traces(tmp_path)


PREPARE = """
import sys
from bertjax.data.preparation.prepare import prepare
from tests.data.preparation.test_snapshots import preparation
prepare(preparation(sys.argv[2], workers=2), sys.argv[1])
"""


PEAK = """
import resource, sys
from etils import epath
from bertjax.data.preparation.snapshots import Source, take_snapshots
from bertjax.progress import silent
from tests.data.preparation.test_snapshots import preparation
name = sys.argv[1]
_, taken = take_snapshots(preparation(name), epath.Path(sys.argv[2]), [Source(name, "sql")], silent)
print(taken[name].rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_memory_of_a_snapshot_does_not_grow_with_the_rows(server, tmp_path):
    peaks = []
    for rows in (5_000, 200_000):
        select = f"SELECT repeat(md5(i::text), 32) AS text FROM generate_series(1, {rows}) i"
        name = f"sql:postgresql:///postgres?host={server.folder}&port={server.port}&user=owner&query={select}"
        run = subprocess.run(
            [sys.executable, "-c", PEAK, name, str(tmp_path / f"{rows}")],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        done, kilobytes = map(int, run.stdout.split())
        assert done == rows
        peaks.append(kilobytes / 1024)
    # The larger has 200 MB more text.
    assert peaks[1] < peaks[0] + 20
