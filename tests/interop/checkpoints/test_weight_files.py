"""Weights are untrusted files: whatever they hold ends in an error that names the file, or in numbers."""

import json
import os
import pickle
import struct

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from flax.serialization import msgpack_serialize
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.interop.checkpoints.safetensors_file import write_safetensors
from bertjax.interop.checkpoints.weight_files import open_weights
from tests.interop.damage import damage, damages

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.LayerNorm.bias": np.ones(4, np.float32),
    "b": np.array(2, np.float32),
}


def read_all(folder):
    tensors, _ = open_weights(epath.Path(folder))
    return {name: tensors.read(name) for name in tensors.shapes}


@pytest.fixture
def folder(tmp_path):
    write_safetensors(tmp_path, iter(TENSORS.items()), 10**9)
    return tmp_path


def with_header(header, body=b"\0" * 64, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ONE = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DAMAGED = {
    "empty": b"",
    "shorter than the header's length": b"\x08\0\0",
    "header beyond the file": with_header(b"{}", b"", 2**20),
    "header of 2**63 bytes": with_header(b"{}", b"", 2**63),
    "header of 2**64 - 1 bytes": with_header(b"{}", b"", 2**64 - 1),
    "header not JSON": with_header(b"{not json}"),
    "header not UTF-8": with_header(b'{"\xff\xfe": 1}'),
    "header a list": with_header([1, 2]),
    "header nested 100,000 deep": with_header(b"[" * 100_000),
    "tensor no object": with_header({"a": 3}),
    "unknown type": with_header({"a": ONE | {"dtype": "F31"}}, b"\0" * 16),
    "shape does not fit the bytes": with_header({"a": ONE | {"shape": [3, 3]}}, b"\0" * 16),
    "shape of 2**80 numbers": with_header({"a": ONE | {"shape": [2**40, 2**40]}}, b"\0" * 16),
    "negative shape": with_header({"a": ONE | {"shape": [-2, -2]}}, b"\0" * 16),
    "offsets beyond the file": with_header(
        {"a": ONE | {"data_offsets": [2**40, 2**40 + 16]}}, b"\0" * 16
    ),
    "offsets backwards": with_header({"a": ONE | {"data_offsets": [16, 0]}}, b"\0" * 16),
    "offsets overlapping": with_header(
        {"a": ONE, "b": ONE | {"data_offsets": [8, 24]}}, b"\0" * 24
    ),
    "a gap between tensors": with_header(
        {"a": ONE, "b": ONE | {"data_offsets": [20, 36]}}, b"\0" * 36
    ),
    "bytes after the last tensor": with_header({"a": ONE}, b"\0" * 20),
    "body cut short": with_header({"a": ONE}, b"\0" * 12),
    "a PyTorch file by this name": pickle.dumps({"a": [1.0]}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_safetensors_file_is_named(tmp_path, damage):
    (tmp_path / "model.safetensors").write_bytes(DAMAGED[damage])
    with pytest.raises(UserError, match="model.safetensors: found no whole safetensors file"):
        read_all(tmp_path)


BAD_INDEX = {
    "not JSON": (b"{", "cannot be read as JSON"),
    "a list": (b"[]", "found a list, expected a JSON object"),
    "no weight_map": (b"{}", "weight_map: found no object"),
    "weight_map a list": (b'{"weight_map": ["a"]}', "weight_map: found no object"),
    "a file that is missing": (b'{"weight_map": {"b": "none.safetensors"}}', "b: found no file none.safetensors"),
    "a file above the folder": (b'{"weight_map": {"b": "../x.safetensors"}}', "'../x.safetensors', expected the name of a"),
    "an absolute path": (b'{"weight_map": {"b": "/etc/passwd"}}', "'/etc/passwd', expected the name of a file beside it"),
    "a path of a store": (b'{"weight_map": {"b": "gs://bucket/x"}}', "'gs://bucket/x', expected the name of a file"),
    "the folder itself": (b'{"weight_map": {"b": ".."}}', "'..', expected the name of a file beside it"),
    "a number": (b'{"weight_map": {"b": 7}}', "b: found 7, expected the name of a file beside it"),
    "another shard's tensor": (b'{"weight_map": {"c": "part.safetensors"}}', "c: found no such tensor"),
    "a tensor left out": (b'{"weight_map": {"b": "part.safetensors"}}', "found a tensor, expected none"),
    "nested 100,000 deep": (b"[" * 100_000, "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BAD_INDEX)
def test_a_damaged_index_is_named(folder, damage):
    content, expected = BAD_INDEX[damage]
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_all(folder)
    assert expected in str(error.value)
    assert "index.json" in str(error.value) or "part.safetensors" in str(error.value)


class Program:
    """A program that an untrusted pickle may be."""

    def __reduce__(self):
        return (os.mkdir, ("hacked",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_run(tmp_path, monkeypatch, zipped):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    bad = {"a": torch.zeros(2), "b": Program()}
    torch.save(bad, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UserError, match="pytorch_model.bin: found no whole file of PyTorch weights"
    ):
        read_all(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Program()))
    with pytest.raises(
        UserError, match="pytorch_model.bin: found no whole file of PyTorch weights"
    ):
        read_all(tmp_path)
    assert not (tmp_path / "hacked").exists()


def bad_torch_files():
    import torch

    yield "no dictionary", [torch.zeros(2)], "found a list, expected tensors by name"
    yield "a number for a name", {3: torch.zeros(2)}, "expected tensors by name"
    yield "no tensor", {"a": "text"}, "a: found a str, expected a dense tensor"
    yield "sparse", {"a": torch.eye(3).to_sparse()}, "a: found a Tensor, expected a dense tensor"
    yield (
        "integers",
        {"a": torch.zeros(2, dtype=torch.int64)},
        "a: found the type int64, expected one of float32",
    )
    wide = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))
    yield "4 TB made of 4 bytes", {"a": wide}, "a: found 4 bytes for the shape [1000000, 1000000]"


def test_a_pytorch_file_of_something_else_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    for what, content, expected in bad_torch_files():
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(UserError) as error:
            read_all(tmp_path)
        assert expected in str(error.value), what


FLOATS = ["float32", "float16", "bfloat16", "float64"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_in_msgpack_become_float32(tmp_path, dtype):
    tensors = {"a": {"kernel": jnp.array([[0.1, -3.0]]).astype(dtype)}}
    if dtype == "float64":  # jax has none by default
        tensors = {"a": {"kernel": np.array([[0.1, -3.0]])}}
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack_serialize(tensors))
    (array,) = read_all(tmp_path).values()
    assert array.dtype == np.float32
    assert np.array_equal(array, np.asarray(tensors["a"]["kernel"]).astype(np.float32))


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_quantized_weights_in_msgpack_are_named(tmp_path, dtype):
    content = msgpack_serialize({"a": np.ones(3, jnp.dtype(dtype))})
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(UserError, match=f"a: found the type {dtype}, expected one of float32"):
        read_all(tmp_path)


OTHER_MSGPACK = {
    "cut": (msgpack_serialize({"a": np.ones(99)})[:-40], "found no whole msgpack file of Flax"),
    "a list": (msgpack.packb([1, 2]), "found a list, expected tensors by name"),
    "a number": (msgpack.packb({"a": {"b": 3}}), "a/b: found a int, expected an array of numbers"),
    "texts": (msgpack.packb({"a": "text"}), "a: found a str, expected an array of numbers"),
    "names that are numbers": (msgpack.packb({7: b"x"}), "found no whole msgpack file of Flax"),
    "complex": (msgpack_serialize({"a": np.ones(3, np.complex64)}), "a: found the type complex64"),
    "booleans": (msgpack_serialize({"a": np.ones(3, bool)}), "a: found a ndarray, expected an"),
}


@pytest.mark.parametrize("what", OTHER_MSGPACK)
def test_a_msgpack_file_of_something_else_is_named(tmp_path, what):
    content, expected = OTHER_MSGPACK[what]
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_all(tmp_path)
    assert f"flax_model.msgpack: {expected}" in str(error.value)


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_in_safetensors_become_float32(tmp_path, dtype):
    array = np.array([[0.1, -3.0]]).astype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
    safetensors.numpy.save_file({"a": array}, tmp_path / "model.safetensors")
    read = read_all(tmp_path)["a"]
    assert read.dtype == np.float32
    assert np.array_equal(read, array.astype(np.float32))


def originals(tmp_path_factory):
    import flax.serialization

    made = {}
    folder = tmp_path_factory.mktemp("originals")
    write_safetensors(folder, iter(TENSORS.items()), 10**9)
    made["model.safetensors"] = (folder / "model.safetensors").read_bytes()
    write_safetensors(folder, iter(TENSORS.items()), 50)
    made["model.safetensors.index.json"] = (folder / "model.safetensors.index.json").read_bytes()
    tree = {
        "a": {"weight": TENSORS["a.weight"], "bias": np.ones(3, np.float16)},
        "b": np.zeros((2, 2), np.float32),
    }
    made["flax_model.msgpack"] = flax.serialization.msgpack_serialize(tree)
    try:
        import torch
    except ImportError:
        return made
    torch.save({name: torch.tensor(value) for name, value in TENSORS.items()}, folder / "new.bin")
    torch.save({"a": torch.ones(3)}, folder / "old.bin", _use_new_zipfile_serialization=False)
    made["pytorch_model.bin"] = (folder / "new.bin").read_bytes()
    return made | {"pytorch_model.bin (old)": (folder / "old.bin").read_bytes()}


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    return originals(tmp_path_factory)


NAMES = [
    "model.safetensors",
    "model.safetensors.index.json",
    "flax_model.msgpack",
    "pytorch_model.bin",
    "pytorch_model.bin (old)",
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), damage_=damages())
@example(name="flax_model.msgpack", damage_=("cut", 0.0, b"\0"))
@example(name="flax_model.msgpack", damage_=("overwrite", 0.0, b"\xdf\xff\xff\xff\xff"))
@example(name="flax_model.msgpack", damage_=("overwrite", 0.0, b"\xdd\xff\xff\xff\xff"))
@example(name="flax_model.msgpack", damage_=("insert", 0.0, b"\xc9\xff\xff\xff\xff\x01"))
def test_any_damage_ends_in_one_line_or_in_numbers(whole_files, tmp_path_factory, name, damage_):
    if name not in whole_files:
        return
    folder = tmp_path_factory.mktemp("damaged")
    write_safetensors(folder, iter(TENSORS.items()), 50)  # the shards of the index
    if not name.startswith("model.safetensors.index"):
        (folder / "model.safetensors.index.json").unlink()
    (folder / name.removesuffix(" (old)")).write_bytes(damage(whole_files[name], *damage_))
    try:
        tensors = read_all(folder)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(folder) in str(error)  # noqa: PT017
    else:
        assert all(array.dtype == np.float32 for array in tensors.values())
