"""Sample of training documents on which a vocabulary is trained, chosen by their content."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from etils import epath

from bertjax.config import Config
from bertjax.data.corpus.stretches import cut
from bertjax.data.corpus.work_units import WorkUnit, read_texts
from bertjax.data.preparation.documents import digest
from bertjax.data.preparation.shard_assignment import Plan, split_word
from bertjax.data.records.manifest import WORK
from bertjax.errors import check, disk_errors
from bertjax.given_files import read_file
from bertjax.json_values import shown, value_of
from bertjax.storage import write_whole

# The sample is larger by this factor than needed, because the sizes of work units are estimates.
OVERSAMPLING = 1.2
FOLDER = "sample"


def take(config: Config, folder: str, plan: Plan, work_unit: WorkUnit, corpus_bytes: int) -> None:
    """Write a work unit's part of the sample, if that is not done.

    `corpus_bytes` is the estimated text of all work units. Documents are chosen by their content;
    held-out documents are left out.
    """
    target = epath.Path(folder) / WORK / FOLDER / f"{work_unit.name}.jsonl"
    if target.exists():
        return
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    share = min(1.0, OVERSAMPLING * config.tokenizer.train_characters / max(corpus_bytes, 1))
    lines = "".join(_lines(config, plan, work_unit, share))
    write_whole(target, lines.encode(errors="surrogatepass"))


def read(folder: epath.Path, work_units: Sequence[str], characters: int) -> list[str]:
    """Read the sentences of all work units' samples, about `characters` of them at most.

    Each document is used once, and documents are sorted by digest. So the result does not depend on
    the order of the files or on the work units.
    """
    documents: dict[str, list[str]] = {}
    for name in work_units:
        path = folder / WORK / FOLDER / f"{name}.jsonl"
        # `json.dumps` writes ASCII, so a line holds no other character that ends one.
        for number, line in enumerate(read_file(path, "a sample").splitlines(), 1):
            key, sentences = _document(line, f"{path}: line {number}")
            documents[key] = sentences
    sample: list[str] = []
    total = 0
    # Digests are like random numbers, so the first ones are a fair sample.
    for key in sorted(documents):
        if total >= characters:
            break
        sample += documents[key]
        total += sum(map(len, documents[key]))
    return sample


def _document(line: bytes, where: str) -> tuple[str, list[str]]:
    """Return digest and sentences of a line that `_lines` made; `UserError` for any other."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    is_document = isinstance(values, list) and len(values) == 2 and isinstance(values[0], str)
    check(is_document, where=where, found=shown(values), expected="a digest and the sentences")
    return values[0], value_of(list[str], values[1], where)


def _lines(config: Config, plan: Plan, work_unit: WorkUnit, share: float) -> Iterator[str]:
    """Yield `[digest, sentences]` of each document in the sample, as a line of JSON."""
    for text, split in read_texts(work_unit, config.data, Counter()):
        # Documents are chosen by the checksum of the text. The digest would need the sentences, and
        # splitting all texts, also those not chosen, would take longer than everything else here.
        if zlib.crc32(text.encode(errors="surrogatepass")) > share * 2**32:
            continue
        for sentences in cut(split(text), config.data.split_documents):
            key = digest(sentences)
            if split_word(key) >= plan.heldout_bound:
                yield json.dumps([key.hex(), sentences]) + "\n"
