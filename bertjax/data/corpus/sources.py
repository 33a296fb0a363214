"""What a corpus consists of: files, folders, TensorFlow Datasets, or CPython itself."""

import glob
import hashlib
import sys
from dataclasses import dataclass

from etils import epath

from bertjax.config import DataConfig
from bertjax.data.corpus.formats import tfds_bytes
from bertjax.errors import UserError, check
from bertjax.storage import OPENERS, version_of

BY_ENDING = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """One file of a corpus, or one data set."""

    name: str
    """Its path, or `tfds:NAME`, or `python-docs`."""
    format: str
    """How it is read: a value of `DataConfig.format` but `auto`, or `tfds`, or `python-docs`."""
    size: int = 0
    """Bytes on the disk; 0 where it is not known."""


def find_sources(config: DataConfig) -> list[Source]:
    """The sources that `config.corpus` names, each once, in the order of their names.

    Folders, also those that a glob matches, give the files in them and below, hidden ones left
    out. Raises `UserError` for a name that matches no file or cannot be looked into.
    """
    found: dict[str, Source] = {}
    for name in config.corpus:
        if name == "python-docs":
            found[name] = Source(name, name)
        elif name.startswith("tfds:"):
            found[name] = Source(name, "tfds", tfds_bytes(name))
        else:
            found |= {source.name: source for source in _file_sources(config, name)}
    return [found[name] for name in sorted(found)]


def fingerprint(source: Source) -> str:
    """A digest that changes when a file's size or time of change does, or CPython's version; of
    TFDS, of the name.
    """
    facts = source.name
    if source.format == "python-docs":
        facts += f" {sys.version}"
    elif source.format != "tfds":
        facts += f" {version_of(epath.Path(source.name))}"
    return hashlib.sha256(facts.encode()).hexdigest()


def _file_sources(config: DataConfig, name: str) -> list[Source]:
    expected = "a file, a folder, a glob, tfds:NAME or python-docs"
    try:
        files = _files(name)
        found = "a folder without files" if epath.Path(name).is_dir() else "no such file"
        check(len(files) > 0, where=f"data.corpus {name}", found=found, expected=expected)
        return [Source(str(path), _format(config, path), path.stat().length) for path in files]
    except OSError as error:
        raise UserError(
            f"data.corpus {name}: cannot be looked into ({error.strerror or error})"
        ) from error


def _files(name: str) -> list[epath.Path]:
    path = epath.Path(name)
    if path.is_dir():
        # In a store a folder may have an empty object of its own name in it.
        shown = [p for p in path.iterdir() if not p.name.startswith(".") and p != path]
        below = [p for folder in shown if folder.is_dir() for p in _files(str(folder))]
        return sorted([*(p for p in shown if p.is_file()), *below])
    if path.exists():
        return [path]
    return [file for match in sorted(_glob(name)) for file in _files(match)]


def _glob(pattern: str) -> list[str]:
    scheme, remote, rest = pattern.partition("://")
    if not remote:
        return glob.glob(pattern, recursive=True)
    bucket, _, below = rest.partition("/")
    return (
        [str(path) for path in epath.Path(f"{scheme}://{bucket}").glob(below)]
        if glob.has_magic(below)
        else []
    )


def _format(config: DataConfig, path: epath.Path) -> str:
    if config.format != "auto":
        return config.format
    plain = path.with_suffix("") if path.suffix in OPENERS else path
    return BY_ENDING.get(plain.suffix, "bert")
