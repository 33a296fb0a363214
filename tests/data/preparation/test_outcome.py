import json
import textwrap

import numpy as np

from bertjax.data.corpus.sentences import describe_doubts
from bertjax.data.preparation.prepare import prepare
from tests.data.preparation.corpora import config_of


def test_the_unigram_entropy_is_that_of_the_held_out_tokens(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"x{i} x{i} y y\ny y x{i} x{i}" for i in range(40)) + "\n")
    manifest = prepare(config_of(path, validation_fraction=0.5), tmp_path / "out")
    assert 0.5 < manifest.validation_unigram_entropy < np.log(400)
    tokens = manifest.counts["validation_tokens"]
    assert tokens >= 8 * manifest.counts["validation_documents"]


def test_lines_that_look_wrapped_and_texts_without_marks_are_counted(tmp_path):
    words = [f"word{i}" for i in range(60)]
    wrapped = [textwrap.fill(f"{' '.join(words[i:])}. Then more.", 40) for i in range(40)]
    unmarked = ["\n".join(words[i : i + 5]) for i in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(wrapped))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in unmarked))
    config = config_of(tmp_path / "a.*")
    manifest = prepare(config, tmp_path / "out")
    assert manifest.counts["wrapped_documents"] == manifest.counts["unmarked_documents"] == 40
    assert len(describe_doubts(manifest.counts)) == 2


def test_letters_of_each_script_are_counted_by_split(tmp_path):
    texts = [f"word {n}\nслово {n}" for n in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    manifest = prepare(config_of(tmp_path / "a.txt", validation_fraction=0.5), tmp_path / "out")
    for split in ("train", "validation"):
        documents = manifest.counts[f"{split}_documents"]
        assert manifest.scripts[split] == {"Cyrillic": 5 * documents, "Latin": 4 * documents}
