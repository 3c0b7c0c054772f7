"""LPIPS: the distance of two images in the features of AlexNet (Zhang et al. 2018), by the authors' package."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from clockwork.errors import import_extra
from clockwork.io.download import download
from clockwork.io.fingerprint import weights_hash
from clockwork.metrics.numerics import exact_convolutions
from clockwork.metrics.similarity import Similarity

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
SHA256 = "7be5be79"  # its first digits


class LPIPS(Similarity):
    """Mean LPIPS, version 0.1.

    Args:
        network: The authors' network.
        name: Its name in rows.
        device: Where it is computed: `auto`, or a torch device.
    """

    def __init__(self, network: nn.Module, name: str = "lpips", device: str = "cpu") -> None:
        super().__init__(name, device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.label = f"AlexNet {weights_hash(network)}"

    @property
    def description(self) -> str:
        return f"LPIPS {self.label}"

    @torch.no_grad()
    def of_pairs(self, images: Tensor, others: Tensor) -> Tensor:
        with exact_convolutions():
            distances: Tensor = self.network(images / 127.5 - 1, others / 127.5 - 1)
        return distances.flatten()


def alexnet_lpips(
    lpips_weights: str = "outputs/cache/alexnet-owt-7be5be79.pth", name: str = "lpips", device: str = "auto"
) -> LPIPS:
    """Creates LPIPS with torchvision's AlexNet.

    Args:
        lpips_weights: File of torchvision's weights, downloaded if it is missing.
        name: Its name in rows.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.

    Raises:
        MissingFileError: There is no such file, and no network to download it.
    """
    lpips, file = import_extra("lpips", "eval"), Path(lpips_weights)
    if not file.is_file():
        download(
            URL,
            file,
            SHA256,
            f"no AlexNet weights at {file}, and no network to download them: fetch {URL} to that place, or pass "
            "metrics.lpips_weights=<its file>",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, of the package's call
        network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    weights = torch.load(file, map_location="cpu", weights_only=True)
    # Names there are those of torchvision's layers, `features.0.weight`, below the slice that a layer belongs to.
    names = {key: f"features.{key.split('.', 1)[1]}" for key in network.net.state_dict()}
    network.net.load_state_dict({key: weights[name] for key, name in names.items()})
    return LPIPS(network, name, device)
