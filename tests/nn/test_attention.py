"""The encoder block against PyTorch's own layer with the same weights."""

import pytest
import torch

from tests.rounding import assert_same_but_rounding
from xfm.nn.attention import EncoderBlock
from xfm.nn.packing import Packing


def pair(dim: int = 12, heads: int = 3, ffn: int = 20) -> tuple[EncoderBlock, torch.nn.TransformerEncoderLayer]:
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(dim, heads, ffn, dropout=0.1, batch_first=True).eval()
    ours = EncoderBlock(dim, heads, ffn, 0.1).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def mask_of(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def test_padded_and_packed_blocks_equal_the_torch_layer():
    ours, theirs = pair()
    x, real = torch.randn(3, 7, 12), mask_of([7, 2, 5])
    expected = theirs(x, src_key_padding_mask=~real)[real]
    assert_same_but_rounding(ours(x, None, real)[real], expected, 32)
    packing = Packing.of(real, 8)
    groups = packing.split(packing.pack(x))
    packed = [ours(group, lengths) for group, lengths in zip(groups, packing.groups, strict=True)]
    assert_same_but_rounding(torch.cat(packed), expected, 32)
    assert_same_but_rounding(packing.pad(packed)[real], expected, 32)


def test_training_gradients_equal_those_of_the_torch_layer():
    ours, theirs = pair()
    x = torch.randn(2, 5, 12)
    ours(x.flatten(0, 1), [5, 5]).square().sum().backward()
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    theirs.self_attn.dropout = 0.0
    theirs(x).square().sum().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-4)


def test_a_block_leaves_its_input_alone():
    ours, _ = pair()
    x = torch.randn(6, 12)
    kept = x.clone()
    with torch.inference_mode():
        ours(x, [4, 2])
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("lengths", "limit", "groups"),
    [([3, 3, 3], 6, [[3, 3], [3]]), ([9, 1, 1], 4, [[9], [1, 1]]), ([2], 100, [[2]]), ([1, 9, 1], 4, [[1], [9], [1]])],
)
def test_groups_hold_whole_rows_up_to_the_limit(lengths, limit, groups):
    assert Packing.of(mask_of(lengths), limit).groups == groups


def test_padding_a_packed_batch_restores_it():
    real = mask_of([4, 1, 3])
    x = torch.randn(3, 4, 2) * real[:, :, None]
    packing = Packing.of(real, 4)
    assert torch.equal(packing.pad(packing.split(packing.pack(x))), x)
    assert packing.starts.tolist() == [0, 4, 5]
