"""One vector a row, whatever stands at padding."""

import pytest
import torch

from xfm.core.tokenizer import Tokens
from xfm.models.reductions import Pool


def tokens_of(lengths):
    is_token = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    is_content = is_token.clone()
    is_content[:, 0] = False
    return Tokens(torch.zeros(is_token.shape, dtype=torch.int64), None, is_token, is_content)


def test_padding_and_special_tokens_do_not_count():
    tokens = tokens_of([4, 2])
    state = torch.tensor([[[9.0], [1], [2], [6]], [[7], [-5], [1e30], [-1e30]]])
    expected = {"cls": [[9.0], [7]], "mean": [[3], [-5]], "max": [[6], [-5]]}
    for name, values in expected.items():
        pool = Pool(name)
        assert pool.columns == (name,)
        out = pool(state, tokens, None)
        assert list(out) == [name]
        torch.testing.assert_close(out[name], torch.tensor(values, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_of_a_long_row_in_half_precision_is_taken_in_single(dtype):
    state = torch.full((1, 1200, 2), 1.5, dtype=dtype)
    out = Pool("mean")(state, tokens_of([1200]), None)["mean"]
    torch.testing.assert_close(out.float(), torch.full((1, 2), 1.5), rtol=1e-6, atol=0)
