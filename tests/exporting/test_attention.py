"""Attention of ONNX graphs in onnxruntime's own operator: torch's result, without a matrix of all scores."""

from pathlib import Path
from typing import Any

import onnx_ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from clockwork.exporting.formats import onnx_model

HEADS, WIDTH = 4, 24


class Attention(nn.Module):
    """Self-attention of `HEADS` heads, with the arguments of torch's function."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (f(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for f in (torch.sin, torch.cos, torch.tanh))
        return F.scaled_dot_product_attention(query, key, value, mask, **self.options).transpose(1, 2).flatten(2)


def converted(module: Attention, *inputs: Tensor) -> Any:
    """The ONNX graph of a module, with dynamic batch and tokens."""
    dims = ({0: Dim("images"), 1: 4 * Dim("rows")}, *({} for _ in inputs[1:]))
    program = torch.export.export(module, inputs, dynamic_shapes=dims if len(inputs) == 1 else None)
    return onnx_model(program, ["x", "mask"][: len(inputs)])


def results(model: Any, folder: Path, *inputs: Tensor) -> Tensor:
    """What onnxruntime computes."""
    onnx_ir.save(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return torch.from_numpy(session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0])


@pytest.mark.parametrize("scale", [None, 0.2])
def test_fused_attention_is_torch_s_at_all_sizes(scale: float | None, tmp_path: Path) -> None:
    module = Attention(scale=scale)
    model = converted(module, torch.randn(2, 8, WIDTH))
    operators = [(node.domain, node.op_type) for node in model.graph]
    assert operators.count(("com.microsoft", "MultiHeadAttention")) == 1
    assert not {"Attention", "Softmax"} & {name for _, name in operators}
    for shape in [(2, 8), (1, 1024), (3, 20)]:
        x = torch.randn(*shape, WIDTH)
        assert torch.allclose(results(model, tmp_path, x), module(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_attention_with_a_mask_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    module = Attention(is_causal=kind == "causal")
    inputs = torch.randn(2, 8, WIDTH), torch.randn(8, 8)
    inputs = inputs if kind == "masked" else inputs[:1]
    model = converted(module, *inputs)
    assert "MultiHeadAttention" not in {node.op_type for node in model.graph}
    assert torch.allclose(results(model, tmp_path, *inputs), module(*inputs), atol=1e-6)
