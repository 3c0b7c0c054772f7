"""HPSv2: the cosine of an image and its prompt in a CLIP model that was tuned on people's choices (arXiv 2306.09341).

The network is open_clip's ViT-H/14 with other weights, so that open_clip computes it. The authors' package pins old
versions of other libraries.
"""

from pathlib import Path

from clockwork.errors import MissingFileError
from clockwork.io.device import choose_device
from clockwork.io.fingerprint import file_hash
from clockwork.metrics.clip_score import CLIPScore
from clockwork.teachers.text_embedder import OpenCLIP


class HPSv2(CLIPScore):
    """HPSv2, as the authors' `score` returns it; their tables have it times 100.

    Args:
        clip: The model, whose `tag` is the file of its weights.
        name: Its name in rows.
    """

    def __init__(self, clip: OpenCLIP, name: str = "hpsv2") -> None:
        super().__init__(clip, name)
        self.label = f"{clip.name} {Path(str(clip.tag)).stem} {file_hash(Path(str(clip.tag)))}"

    @property
    def description(self) -> str:
        return f"HPSv2 {self.label}"

    @property
    def identity(self) -> list[str]:
        return [self.name, self.description, str(self.clip.precision)]


def hpsv2(
    hpsv2_weights: str = "outputs/cache/HPS_v2.1_compressed.pt",
    hpsv2_clip: str = "ViT-H-14",
    name: str = "hpsv2",
    device: str = "auto",
) -> HPSv2:
    """Creates HPSv2.

    Args:
        hpsv2_weights: File of the weights, of version 2.0 or 2.1.
        hpsv2_clip: open_clip's name of the network.
        name: Its name in rows.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.

    Raises:
        MissingFileError: There is no such file.
    """
    file = Path(hpsv2_weights)
    if not file.is_file():
        raise MissingFileError(
            f"no HPSv2 weights at {file}: download them with `hf download xswu/HPSv2 HPS_v2.1_compressed.pt "
            f"--local-dir {file.parent}` where there is a network, or pass metrics.hpsv2_weights=<the file>"
        )
    return HPSv2(OpenCLIP(hpsv2_clip, str(file), choose_device(device)), name)
