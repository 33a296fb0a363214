"""Which attention a kernel computes, by configuration, device and shape."""

from dataclasses import dataclass

import pytest

from bertjax.config import ModelConfig
from bertjax.model.kernels import selection
from bertjax.model.layout import ANYWHERE, WrappedLayout


@dataclass(frozen=True)
class Device(WrappedLayout):
    """A layout for one device of a platform, with the memory of a core."""

    name: str = "tpu"
    memory: int = 128 << 20

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
    wide = {"num_attention_heads": 6, "rotary_pairs": "interleaved"}
    assert not selection.long_attention(rotary(**wide), 1024, True, V5E)
    relative = {"relative_positions": 512, "local_attention": 0, "positions": "none"}
    assert not selection.long_attention(rotary(**relative), 1024, True, V5E)


def test_a_gpu_computes_windows_with_dropout_too():
    assert selection.local_attention(rotary(attention_probs_dropout_prob=0.1), 1024, GPU)
    assert selection.attention(PLAIN, 1024, GPU)
