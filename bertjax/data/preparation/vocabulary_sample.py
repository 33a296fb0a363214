"""The sentences that a vocabulary is trained on: a sample of the training documents, by their
content.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data.corpus.work_units import WorkUnit, read_texts
from bertjax.data.preparation.documents import DIGEST_BYTES, digest
from bertjax.data.preparation.shard_assignment import Plan
from bertjax.data.records.manifest import WORK
from bertjax.errors import disk_errors
from bertjax.storage import write_whole

SPARE = 1.2  # of what is wanted, since sizes are estimates
FOLDER = "sample"


def take(config: Config, folder: str, plan: Plan, work_unit: WorkUnit, whole: int) -> None:
    """Write the piece's share of the sample, if that is not done: documents chosen by their
    content.

    `whole` is the size of all pieces. Held-out documents are left out.
    """
    target = epath.Path(folder) / WORK / FOLDER / f"{work_unit.name}.jsonl"
    if target.exists():
        return
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    share = min(1.0, SPARE * config.tokenizer.train_characters / max(whole, 1))
    lines = list(_lines(config, plan, work_unit, share))
    write_whole(target, "".join(lines).encode(errors="surrogatepass"))


def read(folder: epath.Path, names: list[str], characters: int) -> list[str]:
    """The sentences of all pieces' samples, each document once, by digest; about `characters` at
    most.
    """
    documents: dict[str, list[str]] = {}
    for name in names:
        text = (
            (folder / WORK / FOLDER / f"{name}.jsonl").read_bytes().decode(errors="surrogatepass")
        )
        documents |= dict(json.loads(line) for line in text.splitlines())
    sentences: list[str] = []
    total = 0
    for key in sorted(documents):
        if total >= characters:
            break
        sentences += documents[key]
        total += sum(map(len, documents[key]))
    return sentences


def _lines(config: Config, plan: Plan, work_unit: WorkUnit, share: float) -> Iterator[str]:
    """`[digest, sentences]` of each document in the sample, as a line of JSON."""
    for text, split in read_texts(work_unit, config.data, Counter()):
        # By the text's checksum: to split a text that is not wanted would take longer than all else
        # here.
        if zlib.crc32(text.encode(errors="surrogatepass")) > share * 2**32:
            continue
        document = split(text)
        key = digest(document)
        if document and not plan.held_out(np.frombuffer(key, np.uint8).reshape(1, DIGEST_BYTES))[0]:
            yield json.dumps([key.hex(), document]) + "\n"
