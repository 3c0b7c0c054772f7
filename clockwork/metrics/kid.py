"""Kernel Inception distance: the squared maximum mean discrepancy of image features (Bińkowski et al. 2018).

Unlike FID its estimate is unbiased at every number of images, so that it serves where there are few.
"""

from torch import Tensor

from clockwork.metrics.fid import inception_reference
from clockwork.metrics.mmd import MMD
from clockwork.metrics.reference import Reference


class KID(MMD):
    """KID against a reference set, with all pairs in place of subsets: the same mean, with a smaller spread.

    Args:
        reference: What the images are compared with.
        name: Its name in rows.
    """

    def __init__(self, reference: Reference, name: str = "kid") -> None:
        super().__init__(reference, name)

    @staticmethod
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        """KID's kernel, `(a · b / width + 1)³`. Arguments as in `MMD.kernel`."""
        return (a @ b.mT / a.shape[1] + 1) ** 3


def inception_kid(
    reference: str,
    inception: str,
    sha256: str,
    name: str = "kid",
    size: int | None = None,
    cache: str = "outputs/cache",
    device: str = "auto",
) -> KID:
    """Creates the KID of clean-fid's Inception to a folder of real images.

    Args:
        reference: Folder of the reference images.
        inception: File of the Inception network, downloaded if it is missing.
        sha256: Hash of that file.
        name: Its name in rows.
        size: Width and height in pixels to which images are resized first; None for their own.
        cache: Folder of the features of the reference.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    return KID(inception_reference(reference, inception, sha256, size, cache, device), name)
