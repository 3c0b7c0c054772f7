"""FID and CLIP score of captioned pictures made elsewhere: `python scripts/score.py images=folder images.path=…`."""

from omegaconf import DictConfig

from clockwork.experiments.command import command


@command("score")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate
    from tqdm import tqdm

    from clockwork.data.captioned_images import pixels
    from clockwork.data.prompts import chunks

    images, metrics = instantiate(cfg.images), instantiate(cfg.metrics)
    batches = list(chunks(images, cfg.batch_size))
    fid, score = metrics.scores(
        lambda: (pixels(batch, cfg.resolution) for batch in tqdm(batches, "pictures", unit="batch")),
        [image.text for image in images],
    )
    for name, value in {"fid": fid, "clip_score": score}.items():
        if value is not None:
            print(f"{name}{'_miniature' * metrics.miniature} {value:.4f}")
    print(f"{len(images)} pictures; {metrics.label}")


if __name__ == "__main__":
    main()
