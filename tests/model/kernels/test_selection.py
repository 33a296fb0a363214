"""Which attention a kernel computes, by configuration, device and shape."""

from dataclasses import dataclass

import pytest

from bertjax.config import ModelConfig
from bertjax.model.kernels import selection
from bertjax.model.layout import ANYWHERE, WrappedLayout


@dataclass(frozen=True)
class Device(WrappedLayout):
    """A layout for devices of a platform, with the memory of a core and parts of logical axes."""

    name: str = "tpu"
    memory: int = 128 << 20
    cuts: tuple[tuple[str, int], ...] = ()

    def parts(self, name):
        return dict(self.cuts).get(name, 1)

    @property
    def platform(self):
        return self.name

    @property
    def core_memory(self):
        return self.memory


V5E = Device(ANYWHERE)
V4 = Device(ANYWHERE, memory=16 << 20)
GPU = Device(ANYWHERE, "gpu", 0)

PLAIN = ModelConfig(kernels="pallas", dropout_bits="hash", max_position_embeddings=8192)


def rotary(**fields):
    return ModelConfig(
        **{
            "kernels": "pallas",
            "dropout_bits": "hash",
            "attention_probs_dropout_prob": 0.0,
            "positions": "rotary",
            "local_attention": 128,
            "max_position_embeddings": 8192,
            "dtype": "bfloat16",
        }
        | fields
    )


@pytest.mark.parametrize("length", [128, 512, 1024, 8192])
def test_without_dropout_of_probabilities_a_tpu_computes_windows_and_long_rows(length):
    assert selection.long_attention(rotary(), length, True, V5E)
    assert selection.long_attention(rotary(), length, False, V5E)
    assert selection.missing(rotary(), length, V5E) == []


def test_dropout_of_probabilities_leaves_windows_and_long_rows_to_xla():
    dropped = rotary(attention_probs_dropout_prob=0.1)
    assert not selection.long_attention(dropped, 1024, False, V5E)
    assert selection.missing(dropped, 512, V5E) == ["attention"]
    assert selection.attention(dropped, 512, V5E)
    assert not selection.attention(dropped, 1024, V5E)


def test_short_rows_without_rotary_positions_keep_the_kernel_for_whole_rows():
    without = rotary(positions="learned", local_attention=0)
    assert not selection.long_attention(without, 512, True, V5E)
    assert selection.attention(without, 512, V5E)
    assert selection.long_attention(without, 1024, True, V5E)


def test_rows_that_a_core_has_no_memory_for_are_left_to_xla():
    assert selection.long_attention(rotary(), 1024, True, V4)
    assert not selection.long_attention(rotary(), 4096, True, V4)
    assert not selection.attention(rotary(), 4096, V4)


def test_shapes_that_it_does_not_know_are_left_to_xla():
    assert not selection.long_attention(rotary(), 1000, True, V5E)
    assert not selection.long_attention(rotary(kernels="xla"), 1024, True, V5E)
    assert not selection.long_attention(rotary(), 1024, True, GPU)
    assert not selection.long_attention(relative(), 1024, True, V5E)


def relative(**fields):
    own = {"relative_positions": 512, "local_attention": 0, "positions": "none"}
    return rotary(**(own | fields))


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("length", [128, 512])
def test_a_tpu_computes_relative_positions_with_dropout_too(length, rate):
    config = relative(attention_probs_dropout_prob=rate)
    assert selection.relative_attention(config, length, V5E)
    assert selection.attention(config, length, V5E)
    assert selection.missing(config, length, V5E) == []


def test_relative_positions_of_other_rows_and_devices_are_left_to_xla():
    for config, length, device in (
        (relative(), 500, V5E),
        (relative(), 128, V4),
        (relative(), 8192, V5E),
        (relative(), 512, GPU),
        (relative(kernels="xla"), 512, V5E),
        (relative(positions="rotary"), 512, V5E),
        (rotary(), 512, V5E),
    ):
        assert not selection.relative_attention(config, length, device)
    three = Device(ANYWHERE, cuts=(("heads", 12),))
    assert selection.missing(relative(), 512, three) == ["attention"]


def test_a_gpu_computes_windows_with_dropout_too():
    assert selection.local_attention(rotary(attention_probs_dropout_prob=0.1), 1024, GPU)
    assert selection.attention(PLAIN, 1024, GPU)


def test_a_tpu_computes_cross_entropy_where_each_device_has_the_whole_vocabulary():
    config, words = rotary(vocab_size=50_368), (16, 308)
    assert selection.cross_entropy(config, words, V5E)
    assert selection.missing(config, 1024, V5E, words) == []
    four = Device(ANYWHERE, cuts=(("batch", 4),))
    # Four devices share what is too much for one.
    assert selection.cross_entropy(config, (128, 308), four)
    assert not selection.cross_entropy(config, (128, 308), V5E)
    assert not selection.cross_entropy(config, (15, 308), four)
    tensor = Device(ANYWHERE, cuts=(("vocab", 2),))
    assert selection.missing(config, 1024, tensor, words) == ["cross-entropy"]
    assert selection.missing(config, 1024, tensor) == []
    for other in (V4, GPU):
        assert not selection.cross_entropy(config, words, other)
    assert not selection.cross_entropy(rotary(kernels="xla"), words, V5E)


def test_the_width_of_the_vectors_decides_about_cross_entropy():
    narrow = rotary(embedding_size=100)
    assert not selection.cross_entropy(narrow, (16, 20), V5E)
    assert selection.cross_entropy(rotary(embedding_size=128), (16, 20), V5E)
