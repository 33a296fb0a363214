import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import tracemalloc
import zipfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertjax.config import DataConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.errors import UserError
from tests.data.corpus.test_sources import documents


def zstd(content):
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as file:
        file.write(content)
    return buffer.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
TARS = {"": bytes, **COMPRESS}
ENDINGS = [".zip", *(f".tar{ending}" for ending in TARS), ".tgz", ".tbz2", ".txz", ".tzst"]
SHORT = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar(members, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write(folder, ending, members):
    path = folder / f"corpus{ending}"
    if ending == ".zip":
        return write_zip(path, members)
    compression = SHORT.get(ending) or ending.removeprefix(".tar")
    path.write_bytes(TARS[compression](tar(members)))
    return path


def parquet(texts):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), buffer)
    return buffer.getvalue()


def error_of(path, **options):
    with pytest.raises(UserError) as caught:
        documents(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


MEMBERS = {
    "a.txt": b"One sentence.\nAnother.\n\nA second document.\n",
    "deep/er/b.jsonl": b'{"text": "In JSON. Lines."}\n{"text": null}\n',
    "./c.jsonl.gz": gzip.compress(b'{"text": "Compressed."}\n'),
    "d.TXT.zst": zstd(b"Capitals in the ending."),
    "../../etc/passwd": b"Of no use.",
    "/tmp/absolute.txt": b"Nowhere.",
    "empty.txt": b"",
    ".hidden.txt": b"Not read.",
    "__MACOSX/._a.txt": b"\0\5\x16\7\0 attributes",
}
READ = [
    ["One sentence.", "Another."], ["A second document."], ["In JSON.", "Lines."], ["Compressed."],
    ["Capitals in the ending."], ["Of no use."], ["Nowhere."],
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_files_in_an_archive_are_read_as_files_each_in_its_own_format(tmp_path, ending):
    path = write(tmp_path, ending, MEMBERS)
    assert documents(path) == READ
    # Nothing was unpacked.
    assert list(tmp_path.iterdir()) == [path]
    capitals = tmp_path / f"B{ending.upper()}"
    path.rename(capitals)
    assert documents(capitals) == READ
    assert documents(write(tmp_path, ending, {"a": b"One line.\nAnother."}), format="line") == [
        ["One line."], ["Another."]
    ]  # fmt: skip


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_archives_of_each_form_are_read_and_other_things_than_files_left_out(tmp_path, format):
    path = tmp_path / "a.tar"
    name = "/".join(["folder"] * 20) + "/\u6f22.txt"
    with tarfile.open(path, "w", format=format) as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("other.txt")
            info.type, info.linkname = kind, "elsewhere"
            archive.addfile(info)
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"Text"))
    assert documents(path) == [["Text"]]


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_a_large_archive_is_divided_between_its_files(tmp_path, ending):
    texts = [f"Document {i}." for i in range(300)]
    path = write(tmp_path, ending, {f"{i:03}.txt": t.encode() * 20 for i, t in enumerate(texts)})
    config = DataConfig(corpus=(str(path),), format="file")
    for size in (10**9, 20_000, 1000, 1):
        work_units = make_work_units(find_sources(config), size)
        read = []
        for work_unit in work_units:
            read += read_documents(work_unit, config, Counter())
        assert [document[0].split(".")[0] + "." for document in read] == texts
        names = [work_unit.name for work_unit in work_units]
        assert len(set(names)) == len(names)
        assert names == [
            work_unit.name for work_unit in make_work_units(find_sources(config), size)
        ]
        assert sum(work_unit.size for work_unit in work_units) >= sum(map(len, texts))
    assert len(work_units) == 300


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_parquet_is_read_from_archives_that_can_be_read_from_the_middle(tmp_path, ending):
    members = {"a.parquet": parquet([f"Row {i}." for i in range(500)]), "b.txt": b"Text."}
    path = write(tmp_path, ending, members)
    assert documents(path) == [*([f"Row {i}."] for i in range(500)), ["Text."]]


@pytest.mark.parametrize("ending", [".tar.gz", ".tzst"])
def test_parquet_in_a_compressed_tar_archive_is_refused(tmp_path, ending):
    path = write(tmp_path, ending, {"a.parquet": parquet(["One."])})
    assert error_of(path).startswith(
        ", a.parquet: found compressed Parquet, or Parquet in a compressed archive, expected the file"
    )


@pytest.mark.parametrize("ending", ENDINGS[:4])
@pytest.mark.parametrize("name,content,message", [
    ("b.zip", b"", ", b.zip: found an archive in an archive, expected it unpacked"),
    ("b.tar.xz", b"", ", b.tar.xz: found an archive in an archive, expected it unpacked"),
    ("b.txt", gzip.compress(b"text", mtime=0), ", b.txt: found gzip data, expected text in UTF-8, or the ending .gz"),
    ("b.txt", tar({"a": b"text"}), ", b.txt: found a tar archive, expected text in UTF-8, or the ending .tar"),
    ("b.txt.gz", b"text", ", b.txt.gz: is truncated or no whole .gz file ("),
    ("b.txt.zst", zstd(b"text" * 99)[:-4], ", b.txt.zst: is truncated or no whole .zst file ("),
    ("b\x1b[31m.jsonl", b'{"text": "One."}\n{', ", b?[31m.jsonl, line 2: found broken JSON"),
    ("b.txt", b"One\ntwo \xff", ", b.txt, line 2: found the byte 0xff, which is not UTF-8"),
    (".txt", b"Hidden.", ": found no text, expected one document or more"),
    ("b.txt", b"", ": found no text, expected one document or more"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_in_an_archive_is_one_line(
    tmp_path, ending, name, content, message
):
    assert error_of(write(tmp_path, ending, {name: content})).startswith(message)


def test_an_encrypted_zip_archive_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.txt": b"One."})
    content = bytearray(path.read_bytes())
    # Bit 0 of the flags, of the file and in the directory (APPNOTE.TXT, 4.4.4).
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert error_of(path) == ", a.txt: found an encrypted file, expected one without a password"


def test_a_damaged_or_truncated_archive_is_never_read_as_a_shorter_one(tmp_path):
    texts = {f"{i}.txt": os.urandom(600).hex().encode() for i in range(12)}
    whole = write(tmp_path, ".zip", texts).read_bytes()
    for content in (b"", whole[:-30], whole[:3000], whole[100:], flipped(whole, 2000)):
        (tmp_path / "a.zip").write_bytes(content)
        error_of(tmp_path / "a.zip")
    for compression, compress in TARS.items():
        path = tmp_path / f"a.tar{compression}"
        archive = tar(texts)
        # Each file is a header of 512 bytes and 1,200 bytes, filled up to a multiple of 512.
        end = 12 * (512 + 1536)
        assert not archive[end:].strip(b"\0")
        for cut in (
            archive[:0], archive[:700], archive[:2048], archive[:end], archive[: end - 512],
            flipped(archive, 4096 + 5), archive + archive, archive[: end + 512] + b"rest",
        ):  # fmt: skip
            path.write_bytes(compress(cut))
            error_of(path)
        if compression:
            path.write_bytes(compress(archive)[:-9])
            error_of(path)


def test_an_archive_with_the_ending_of_another_is_named_by_what_it_is(tmp_path):
    archive = tar({"a.txt": b"One."})
    for name, content, message in [
        ("a.zip", archive, "found a tar archive, expected what its ending says, .zip"),
        ("a.tar", gzip.compress(archive), "found gzip data, expected what its ending says, .tar"),
        ("a.tgz", archive, "found a tar archive, expected what its ending says, .gz"),
        ("a.tar", b"Some text.\n" * 99, "is damaged or cannot be read (invalid header)"),
        ("a.zip", b"Some text.\n" * 99, "is damaged or cannot be read (File is not a zip file)"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert error_of(tmp_path / name) == f": {message}"


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def test_a_header_that_asks_for_memory_is_refused(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    for ending, compress in TARS.items():
        path = tmp_path / f"a.tar{ending}"
        path.write_bytes(compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)))
        assert "a name or attributes of 8,589,934,592 bytes" in error_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".zip", ".tar.zst"])
def test_memory_is_bounded_by_a_document_not_by_the_archive_or_its_files(tmp_path, ending):
    line = json.dumps({"text": "some words " * 10_000}) + "\n"
    members = {f"{i}.jsonl": (line * 80).encode() for i in range(2)}  # 9 MB each
    path = write(tmp_path, ending, members)
    del members
    config = DataConfig(corpus=(str(path),))
    (work_unit,) = make_work_units(find_sources(config), 10**9)
    next(read_documents(work_unit, config, Counter()))  # so that imports are not counted
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_documents(work_unit, config, Counter()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 160
    assert peak < 6e6


def test_zstandard_files_are_read_and_what_another_ending_hides_is_named(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstd(b'{"text": "One."}\n') + zstd(b'{"text": "Two."}\n'))
    assert documents(path) == [["One."], ["Two."]]
    kinds = {
        "gzip data": gzip.compress(b"One."), "zstd data": zstd(b"One."), "xz data": lzma.compress(b"One."),
        "bzip2 data": bz2.compress(b"One."), "a zip archive": write_zip(tmp_path / "b.zip", {"a": b"x"}).read_bytes(),
        "a tar archive": tar({"a": b"x"}), "a Parquet file": parquet(["One."]), "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\4",
        "lz4 data": b"\x04\x22\x4d\x18\x64\x40", "an Arrow file": b"ARROW1\0\0\xff\xff\xff\xff", "an Arrow stream": b"\xff\xff\xff\xff\x10\0\0\0",
    }  # fmt: skip
    for kind, content in kinds.items():
        for name in ("a.txt", "a.jsonl", "a.arrow"):
            path = tmp_path / name
            path.write_bytes(content)
            # Also where bytes that are not UTF-8 would be replaced.
            message = error_of(path, encoding_errors="replace")
            assert message.startswith(f": found {kind}, expected text in UTF-8"), kind
        for ending in COMPRESS:
            path = tmp_path / f"a.txt{ending}"
            path.write_bytes(content)
            expected = f": found {kind}, expected what its ending says, {ending}"
            read_as_such = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}[ending]
            if kind != f"{read_as_such} data":
                assert error_of(path) == expected
            path.write_bytes(COMPRESS[ending](content))
            assert error_of(path).startswith(f": found {kind}, expected text in UTF-8")
        path = tmp_path / "a.parquet"
        path.write_bytes(content)
        if kind != "a Parquet file":
            assert error_of(path) == f": found {kind}, expected Parquet"
