"""Attention in ONNX graphs as the operator that onnxruntime computes without a matrix of all scores."""

from typing import Any


def fuse_attention(model: Any) -> None:
    """Replaces the attention of a graph by onnxruntime's `MultiHeadAttention`, in place.

    onnxruntime computes ONNX's own `Attention` on a CPU as two products with a softmax between them, and its
    `MultiHeadAttention` block by block (Dao et al. 2022). Attention with a mask is left as it is.

    Args:
        model: The graph, an `onnx_ir.Model` of opset 23 or later.
    """
    from onnxscript.rewriter import RewriteRule, rewrite

    rule = RewriteRule(_attention, _multi_head_attention, _has_heads)
    rewrite(model, [rule])


def _attention(op: Any, query: Any, key: Any, value: Any) -> Any:
    """The pattern: attention without a mask, of `batch × heads × tokens × channels`."""
    return op.Attention(query, key, value, _outputs=["attended"])


def _has_heads(context: Any, query: Any, attended: Any, **_: Any) -> bool:
    """Whether the number of heads is known, and attention is not causal."""
    node = attended.producer()
    return query.shape is not None and isinstance(query.shape[1], int) and not node.attributes.get_int("is_causal", 0)


def _multi_head_attention(op: Any, query: Any, key: Any, value: Any, attended: Any) -> Any:
    """The replacement, which takes `batch × tokens × (heads · channels)`."""
    heads = int(query.shape[1])

    def joined(x: Any) -> Any:
        return op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))

    scale = attended.producer().attributes.get_float("scale", 0.0)  # 0 stands for the usual one
    result = op.MultiHeadAttention(
        joined(query), joined(key), joined(value), num_heads=heads, scale=scale, _domain="com.microsoft"
    )
    return op.Transpose(op.Reshape(result, op.Constant(value_ints=[0, 0, heads, -1])), perm=[0, 2, 1, 3])
