"""Outputs of a few files, as verbs write them, for tests that kill: `main(["folder", "out"])`."""

from etils import epath

from bertjax.errors import UserError
from bertjax.storage import write_whole
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import files_held, folder_written_whole

FILES = {"a.txt": b"a", "inner/b.txt": b"bb", "inner/deep/c.txt": b"ccc", "config.json": b"{}"}


def write_folder(folder):
    """Write `FILES`; return whether anything was written."""
    with folder_written_whole(folder, "test", request_digest("test"), last="config.json") as part:
        if part is None:
            return False
        for name, content in FILES.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    return True


def write_files(path):
    with files_held("test", path, path.parent / "second"):
        write_whole(path, b"first")
        write_whole(path.parent / "second", b"second")


def main(words):
    what, place = words
    try:
        {"folder": write_folder, "files": write_files}[what](epath.Path(place))
    except UserError as error:
        print(error)
        return 2
    return 0
