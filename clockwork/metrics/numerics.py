"""What metrics ask of numbers: finite features, and convolutions in float32 where that is what they are given."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clockwork.errors import UserError


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Without TF32, a GPU's default for convolutions in float32: figures are the same on every device. SSIM subtracts
    squared means from means of squares, which TF32 has too few bits for."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def require_finite_features(features: Tensor, network: str) -> Tensor:
    """The features, unless one is NaN or infinite; `network` names whose they are in the message.

    Raises:
        UserError: A feature is not finite.
    """
    if not bool(features.isfinite().all()):
        raise UserError(f"features of {network} are not finite: check its weights, or measure with device=cpu")
    return features
