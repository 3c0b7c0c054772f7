"""FD-DINOv2: the Fréchet distance of DINOv2 features (Stein et al. 2023, arXiv 2306.04675), which follows people's
judgement of diffusion models more closely than Inception's."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clockwork.errors import MissingFileError
from clockwork.io.device import choose_device
from clockwork.io.fingerprint import weights_hash
from clockwork.metrics.fid import FID, folder_reference
from clockwork.metrics.numerics import exact_convolutions
from clockwork.metrics.structure import IMAGENET

SIDE = 224  # pixels; images are resized with PIL's bicubic filter, as in the authors' dgm-eval


class DINOv2:
    """The class token of a DINOv2 after its last norm, as a feature model.

    Args:
        folder: The model in transformers' format.
        device: Where it computes: `auto`, or a torch device.

    Raises:
        MissingFileError: The folder has no model in that format.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        from transformers import Dinov2Model

        if not (Path(folder) / "config.json").is_file():
            raise MissingFileError(
                f"no DINOv2 at {folder}: download it with `hf download facebook/dinov2-large --local-dir {folder}` "
                "where there is a network, or pass metrics.dinov2=<its folder>"
            )
        self.device = choose_device(device)
        self.module: Any = Dinov2Model.from_pretrained(folder, local_files_only=True).to(self.device).eval()
        self.label = f"DINOv2 {Path(folder).name} {weights_hash(self.module)}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Computes features.

        Args:
            images: 8-bit images, `batch × 3 × height × width`.

        Returns:
            `batch × width`.
        """
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in IMAGENET)
        with exact_convolutions():
            output = self.module((images.to(self.device).float() / 255 - mean) / std)
        features: Tensor = output.last_hidden_state[:, 0]
        return features


def fd_dinov2(
    reference: str,
    dinov2: str = "outputs/cache/dinov2-large",
    name: str = "fd_dinov2",
    cache: str = "outputs/cache",
    device: str = "auto",
) -> FID:
    """Creates the Fréchet distance of DINOv2 features to a folder of real images.

    Args:
        reference: Folder of the reference images.
        dinov2: Folder of the model in transformers' format; the paper's is ViT-L/14.
        name: Its name in rows.
        cache: Folder of what is computed from the reference.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    model = DINOv2(dinov2, device)
    return FID(folder_reference(model, model.label, reference, SIDE, cache), name)
