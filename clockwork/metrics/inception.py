"""The Inception network that FID looks through: clean-fid's, with clean-fid's resizing (Parmar et al. 2022)."""

import hashlib
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clockwork.errors import MissingFileError, UserError
from clockwork.io.device import choose_device
from clockwork.io.download import download
from clockwork.metrics.numerics import exact_convolutions

URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
SIDE, WIDTH = 299, 2048


class Inception:
    """2,048 features per image. `path` is the file clean-fid uses; it is downloaded there once if it is missing.

    A TorchScript file is a program: one with another hash than `sha256` is never loaded.
    """

    def __init__(self, path: str | Path, sha256: str = SHA256, device: str = "auto") -> None:
        path = Path(path)
        if not path.is_file():
            _download(path, sha256)
        if (actual := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
            raise UserError(
                f"{path} has hash {actual[:12]}…, not {sha256[:12]}…: remove it, and it is downloaded again"
            )
        self.device = choose_device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is what the network exists in
            module = torch.jit.load(path, map_location=self.device).eval()
        self._layers = getattr(module, "layers", module)  # without NVIDIA's own resizing and normalising
        self.label = f"Inception {sha256[:12]}, bicubic antialias {SIDE}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features `batch × 2048` of images `batch × 3 × height × width` in [0, 255], of any size."""
        exact = images if self.device.type == "mps" else images.to(self.device)  # which has no double precision
        with exact_convolutions():
            features: Tensor = self._layers((resized(exact).to(self.device) - 128) / 128)
        return features.flatten(1)


def resized(images: Tensor) -> Tensor:
    """Like clean-fid's own resizing by PIL, to 2e-5 grey levels (in single precision it would be 6e-3).

    Gives `batch × 3 × 299 × 299` in [0, 255], not rounded; what has that size already stays as it is.
    """
    exact = F.interpolate(images.double(), size=(SIDE, SIDE), mode="bicubic", antialias=True)
    return exact.clamp(0, 255).float()


def _download(path: Path, sha256: str) -> None:
    if sha256 != SHA256:
        raise MissingFileError(f"no Inception network at {path}: pass metrics.inception=<its file>")
    otherwise = (
        f"no Inception network at {path}, and no network to download it: fetch {URL} and give "
        "metrics.inception=<its file>"
    )
    download(URL, path, sha256, otherwise)
