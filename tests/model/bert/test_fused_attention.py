from copy import deepcopy

import pytest
import torch

from model.bert.build import build_regression_model
from model.bert.fused_attention import FusedSelfAttention, fuse_projections
from model.bert.objectives import average_over_frames
from pipeline.shards.index import read_index


@pytest.mark.parametrize("is_full", [False, True])
def test_fused_projections_keep_parameters_outputs_and_gradients(made, is_full):
    """Outputs and gradients differ in the order of summation only; names and order of the parameters are equal."""
    torch.manual_seed(0)
    size = {"dropout": 0.0, "layers": 2, "hidden": 32, "heads": 4}
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update=size)})
    model = build_regression_model(config, read_index(made.shards), None).train()
    for name, weights in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weights)
    fused = deepcopy(model)
    assert fuse_projections(fused) == 2
    assert fuse_projections(fused) == 0
    assert all(module.training for module in fused.modules())
    assert [name for name, _ in fused.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert fused.state_dict().keys() == model.state_dict().keys()
    tokens, lengths = torch.randint(5, 100, (6, 60), dtype=torch.uint8), torch.tensor([60, 41, 59, 3, 60, 60])
    outputs = []
    for one in (model, fused):
        outputs.append(average_over_frames(one, tokens, lengths, 3, is_full=is_full))
        outputs[-1].square().sum().backward()
    assert torch.allclose(*outputs, rtol=1e-5, atol=1e-6)
    for (name, plain), ours in zip(model.named_parameters(), fused.parameters(), strict=True):
        assert torch.allclose(ours.grad, plain.grad, rtol=1e-4, atol=1e-6), name


def test_dropout_of_attention_is_off_in_evaluation(made):
    model = build_regression_model(made.config, read_index(made.shards), None)
    fuse_projections(model)
    (attention,) = (module for module in model.modules() if isinstance(module, FusedSelfAttention))
    hidden = torch.randn(2, 9, made.config.model.hidden)
    assert attention.dropout.p == made.config.model.dropout > 0
    model.eval()
    assert torch.equal(attention(hidden)[0], attention(hidden)[0])
    model.train()
    assert not torch.equal(attention(hidden)[0], attention(hidden)[0])
