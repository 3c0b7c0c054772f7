"""The registry of metrics: what reports need to know of each, by the name that it has in rows.

A metric is one file in this package and one entry here. Its class is named in a config (`configs/metrics`), so that
nothing heavy is imported to format a row.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

# Modules of other rooms that register metrics of their own, imported when a name is not registered here.
MODULES = ("clockwork.miniature.metrics",)


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric without computing it.

    Attributes:
        name: Its key in the `metrics` of a row.
        label: Its name in tables, figures and model cards.
        direction: Whether lower or higher values are better; None if neither is.
        number_format: Format string of its values.
        inputs: Fields of `metrics.base.Batch` that it reads.
        plotted: Whether figures of quality against cost show it.
        num_features: Of a Fréchet distance, the number of the network's features: figures of fewer images are too large
            by an amount that depends on their number. 0 for other metrics.
    """

    name: str
    label: str
    direction: Literal["lower", "higher"] | None
    number_format: str = "{:.4f}"
    inputs: tuple[str, ...] = ("images",)
    plotted: bool = True
    num_features: int = 0

    @property
    def axis(self) -> str:
        """The title of an axis."""
        return self.label if self.direction is None else f"{self.label} ({self.direction} is better)"


_REGISTRY: dict[str, MetricInfo] = {}


def register(info: MetricInfo) -> None:
    """Adds an entry, or replaces the one of that name.

    Args:
        info: The entry.
    """
    _REGISTRY[info.name] = info


def find_metric(name: str) -> MetricInfo | None:
    """Finds an entry.

    Args:
        name: The metric's name in rows.

    Returns:
        The entry; None if no metric of that name is registered.
    """
    if name not in _REGISTRY:
        for module in MODULES:
            import_module(module)
    return _REGISTRY.get(name)


def metric_info(name: str) -> MetricInfo:
    """Describes a metric for reports.

    Args:
        name: The metric's name in rows.

    Returns:
        Its entry. A metric that is not registered, such as one of a row from elsewhere, is described by its name.
    """
    return find_metric(name) or MetricInfo(name, name.replace("_", " "), None, "{:.4g}", (), plotted=False)


_TO_TEACHER = ("images", "teacher_images")
for _entry in (
    MetricInfo("fid", "FID", "lower", "{:.2f}", num_features=2048),
    MetricInfo("kid", "KID", "lower", "{:.5f}"),
    MetricInfo("cmmd", "CMMD", "lower"),
    MetricInfo("fd_dinov2", "FD-DINOv2", "lower", "{:.2f}", num_features=1024),
    MetricInfo("precision", "precision", "higher", plotted=False),
    MetricInfo("recall", "recall", "higher", plotted=False),
    MetricInfo("density", "density", "higher", plotted=False),
    MetricInfo("coverage", "coverage", "higher", plotted=False),
    MetricInfo("image_reward", "ImageReward", "higher", inputs=("images", "captions")),
    MetricInfo("hpsv2", "HPSv2", "higher", inputs=("images", "captions")),
    MetricInfo("clip_score", "CLIP score", "higher", inputs=("images", "captions")),
    MetricInfo("psnr", "PSNR to the full teacher, dB", "higher", "{:.2f}", _TO_TEACHER),
    MetricInfo("ssim", "SSIM to the full teacher", "higher", inputs=_TO_TEACHER, plotted=False),
    MetricInfo("lpips", "LPIPS to the full teacher", "lower", inputs=_TO_TEACHER, plotted=False),
    # Editing; `images` are the edited ones.
    MetricInfo("dino_distance", "structure distance, DINO", "lower", inputs=("images", "source_images")),
    MetricInfo("psnr_right", "PSNR to the ground truth, dB", "higher", "{:.2f}", ("images", "ground_truth")),
    MetricInfo(
        "psnr_unedited", "PSNR of source and ground truth, dB", None, "{:.2f}", ("source_images", "ground_truth"), False
    ),
    MetricInfo(
        "psnr_reconstruction",
        "PSNR of the reconstruction, dB",
        "higher",
        "{:.2f}",
        ("reconstructions", "source_images"),
    ),
    MetricInfo(
        "psnr_autoencoder", "PSNR of the autoencoder, dB", None, "{:.2f}", ("autoencoded", "source_images"), False
    ),
    # Costs, which are fields of a row: no images are needed.
    MetricInfo("tflops_paper", "TFLOPs per image, paper's convention", "lower", "{:.4g}", (), False),
    MetricInfo("tflops_full", "TFLOPs per image, including attention", "lower", "{:.4g}", (), False),
    MetricInfo("latency_ms", "latency of one image's latents, ms", "lower", "{:.1f}", (), False),
):
    register(_entry)
