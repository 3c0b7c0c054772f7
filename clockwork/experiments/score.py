"""FID and CLIP score of captioned images from elsewhere."""

from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from clockwork.data.captioned_images import pixels
from clockwork.data.image_io import images_at_once
from clockwork.data.prompts import chunks
from clockwork.evaluation.scores import Scores
from clockwork.io import distributed
from clockwork.io.threads import THREADS, map_in_threads


def score(cfg: DictConfig) -> dict[str, float]:
    """Prints and returns the metrics of captioned images; every process measures its share."""
    with distributed.process_group():
        return _score(cfg)


def _score(cfg: DictConfig) -> dict[str, float]:
    images, metrics = instantiate(cfg.images), instantiate(cfg.metrics)
    scores, main_process = Scores(metrics), distributed.rank() == 0
    batches = list(chunks(distributed.share(images), images_at_once(cfg.resolution, cfg.batch_size)))
    read = map_in_threads(lambda batch: pixels(batch, cfg.resolution), batches, ahead=THREADS)
    for batch, images_read in zip(batches, tqdm(read, "images", len(batches), disable=not main_process), strict=True):
        scores.update(images_read, [image.text for image in batch])
    measured = {name: value for name, value in scores.compute().items() if value is not None}
    if main_process:
        for name, value in measured.items():
            print(f"{name} {value:.4f}")
        print(f"{len(images)} images; {metrics.label}")
    return measured
