"""An evaluation with the metrics that need no network."""

from pathlib import Path
from typing import Any

from clockwork.data.prompts import Prompt
from clockwork.evaluation.text_to_image import Evaluation
from clockwork.metrics.base import Metric
from clockwork.metrics.similarity import PSNR, SSIM


def evaluation_of(prompts: list[Prompt], folder: Path, latency: bool = False, **options: Any) -> Evaluation:
    metrics: list[Metric] = [PSNR(), SSIM()]
    return Evaluation(**{"prompts": prompts, "metrics": metrics, "folder": folder, "latency": latency, **options})
