"""FID and CLIP score of captioned images from elsewhere."""

from collections.abc import Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.data.captioned_images import CaptionedImage, pixels
from clockwork.data.image_io import images_at_once
from clockwork.data.prompts import chunks
from clockwork.errors import UserError
from clockwork.experiments.build import make_metrics
from clockwork.io import distributed
from clockwork.io.progress import progress_bar
from clockwork.io.threads import THREADS, map_in_threads
from clockwork.metrics.base import Batch, few_images_notes, label, measurable, measure, require_images


def score(cfg: DictConfig) -> dict[str, float]:
    """Prints and returns the metrics of captioned images; every process measures its share."""
    with distributed.process_group():
        return _score(cfg)


def _score(cfg: DictConfig) -> dict[str, float]:
    images, main_process = instantiate(cfg.images), distributed.rank() == 0
    metrics = measurable(make_metrics(cfg.metrics), {"images", "captions"})
    if not metrics:
        raise UserError("there is no metric of images and captions to compute: pass metrics=miniature or metrics=coco")
    require_images(metrics, len(images), "pass more images, or leave the metric out")
    for note in few_images_notes(metrics, len(images)) if main_process else ():
        print(note)
    groups = list(chunks(distributed.share(images), images_at_once(cfg.resolution, cfg.batch_size)))

    def read(group: Sequence[CaptionedImage]) -> Batch:
        return Batch(pixels(group, cfg.resolution), [image.text for image in group])

    batches = map_in_threads(read, groups, ahead=THREADS)
    figures = measure(metrics, progress_bar(batches, "images", len(groups)))
    if main_process:
        for name, value in figures.items():
            print(f"{name} {value:.4f}")
        print(f"{len(images)} images; {label(metrics)}")
    return figures
