import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bertjax
from bertjax.config import MeshConfig
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.training import checkpoint
from bertjax.training.saved_model import imported_from, load_model, save_model
from tests.factory import SMALL_MODEL, small_config
from tests.storage.test_outputs import content_of

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog"]


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece("vocab.txt", "\n".join(VOCABULARY).encode(), lowercase=True)


@pytest.mark.parametrize(
    "changes",
    [{}, {"heads": ("mlm",)}, {"heads": (), "embedding_size": 8, "share_layers": True}],
    ids=str,
)
def test_a_saved_model_is_loaded_bit_for_bit_with_its_tokenizer(tmp_path, tokenizer, changes):
    config = small_config(model=dataclasses.replace(SMALL_MODEL, **changes))
    params = bertjax.init(config.model, jax.random.key(0))
    folder = save_model(
        tmp_path / "run", config, params, tokenizer, {"imported": {"source": "nowhere"}}
    )
    for path in (tmp_path / "run", folder):
        loaded = load_model(path)
        assert loaded.config == dataclasses.replace(config, mesh=MeshConfig())
        assert jax.tree.structure(loaded.params) == jax.tree.structure(params)
        assert all(map(np.array_equal, jax.tree.leaves(loaded.params), jax.tree.leaves(params)))
        assert loaded.tokenizer.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("origin,message", [
    ("x", "imported: found 'x', expected an object"),
    ([1], "imported: found [1], expected an object"),
    ({"not_taken": "pooling"}, "imported.not_taken: found 'pooling', expected a list of texts"),
    ({"not_taken": [1, None]}, "imported.not_taken: found [1, None], expected a list of texts"),
    ({"not_taken": None}, ""),
    (None, ""),
])  # fmt: skip
def test_an_odd_record_of_an_import_is_named(tmp_path, origin, message):
    config = small_config()
    params = bertjax.init(config.model, jax.random.key(0))
    folder = save_model(tmp_path / "run", config, params, None, {"imported": origin})
    if not message:
        assert imported_from(folder).get("source") is None
        return
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert str(caught.value) == f"{folder}/meta: {message}"


def test_a_model_is_loaded_in_another_type_where_asked(tmp_path):
    config = small_config()
    params = bertjax.init(config.model, jax.random.key(0))
    save_model(tmp_path, config, params, None, {})
    loaded = load_model(tmp_path, dtype=jnp.bfloat16).params
    for leaf, expected in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert leaf.dtype == jnp.bfloat16
        assert np.array_equal(leaf, expected.astype(jnp.bfloat16))


def test_a_model_trained_on_more_devices_than_there_are_with_its_layers_written_out_is_loaded(
    tmp_path,
):
    config = small_config(mesh=MeshConfig(data=64), model={"scan_unroll": 3})
    save_model(tmp_path, config, bertjax.init(config.model, jax.random.key(0)), None, {})
    loaded = load_model(tmp_path).config
    assert (loaded.mesh, loaded.model.scan_unroll) == (MeshConfig(), 1)
    with pytest.raises(UserError, match="mesh: found .*data 64"):
        load_model(tmp_path, config)


def test_a_folder_with_files_in_it_is_not_written_to(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    config = small_config()
    with pytest.raises(
        UserError, match="found files there, expected a folder that is new or empty"
    ):
        save_model(tmp_path, config, bertjax.init(config.model, jax.random.key(0)), None, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    config = small_config()
    with pytest.raises(UserError, match="file/run: cannot be written"):
        save_model(
            tmp_path / "file" / "run",
            config,
            bertjax.init(config.model, jax.random.key(0)),
            None,
            {},
        )
    assert (tmp_path / "file").read_text() == ""


def test_training_is_not_resumed_from_parameters_alone(tmp_path):
    from bertjax.training.batch_source import BatchSource
    from bertjax.training.loop import train

    config = small_config(mesh=MeshConfig())
    save_model(tmp_path, config, bertjax.init(config.model, jax.random.key(0)), None, {})
    with pytest.raises(
        UserError,
        match=r"found parameters alone, expected .* \(another --run-dir, from it by --init-from\)",
    ):
        train(config, tmp_path, BatchSource(train=lambda start, rows: iter([])))


def test_what_a_checkpoint_is_made_of_stands_in_its_meta(tmp_path, tokenizer):
    import json

    config = small_config()
    folder = save_model(
        tmp_path, config, bertjax.init(config.model, jax.random.key(0)), tokenizer, {"source": "x"}
    )
    meta = json.loads((folder / "meta" / "metadata").read_text())
    assert meta["source"] == "x"
    assert meta["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert meta["versions"] == checkpoint.versions()


@pytest.mark.slow
def test_a_model_saved_in_a_bucket_is_whole_and_loads_where_it_is_copied_to(bucket, tmp_path):
    config = small_config()
    params = bertjax.init(config.model, jax.random.key(0))
    saved = save_model(bucket / "run", config, params, None, {})
    assert saved == bucket / "run" / "checkpoints" / "0"
    for name, content in content_of(bucket / "run").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    loaded = load_model(tmp_path).params
    assert all(map(np.array_equal, jax.tree.leaves(loaded), jax.tree.leaves(params)))
