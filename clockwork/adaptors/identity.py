"""The training-free adaptor: the features of the step before, as they are (Table 3, "Identity")."""

from typing import final

from torch import Tensor

from clockwork.adaptors.base import Adaptor, FeatureDims


@final
class Identity(Adaptor, kind="identity"):
    def __init__(self, dims: FeatureDims) -> None:
        super().__init__(dims, ("r_out_prev",))

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        return self.features(r_in, r_out_prev)
