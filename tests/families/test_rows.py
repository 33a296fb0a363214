import pytest

torch = pytest.importorskip("torch")
from tests.families.rows import positions_within, visible_tokens  # noqa: E402

INPUTS = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 2, 3, 0, 0, 0]])


def test_positions_begin_again_with_each_input():
    assert positions_within(INPUTS).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 1, 2]]


def test_tokens_attend_within_their_input_and_the_causal_ones_not_ahead():
    blocks = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2), torch.ones(1, 1)).bool()
    assert visible_tokens(INPUTS)[0].equal(blocks)
    assert visible_tokens(INPUTS, causal=True)[0].equal(blocks.tril())
