"""The adaptor that needs no training: the previous step's features, unchanged (paper, Table 3, "Identity")."""

from typing import final

from torch import Tensor

from clockwork.adaptors.base import ANY_DIMS, Adaptor, FeatureDims


@final
class Identity(Adaptor, kind="identity"):
    """Returns `r_out` of the previous step. It fits features of any number of channels.

    Args:
        dims: Dimensions of the features, which are stored but not used.
    """

    has_weights = False

    def __init__(self, dims: FeatureDims = ANY_DIMS) -> None:
        super().__init__(dims, ("r_out_prev",))

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        """Returns `r_out_prev`; arguments as in `Adaptor.forward`."""
        return self.features(r_in, r_out_prev)
