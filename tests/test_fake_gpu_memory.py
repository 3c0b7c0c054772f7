"""Memory of training and evaluation at real size, with the values that the configs have, on a GPU that is not there."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers.fake_gpu import GPU
from helpers.real_size import RealSize, alone
from hydra import initialize_config_dir

from clockwork.adaptors.resnet import ResNet
from clockwork.experiments.configs import compose_config
from clockwork.miniature.prompts import scene_prompts
from clockwork.schedule import Schedule
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.objectives.adaptor import AdaptorDistillation

CONFIGS = str(Path(__file__).parent.parent / "configs")
BARS = {"sd15": (12, 8), "sd21": (24, 24), "sdxl": (40, 40)}  # GiB: training, evaluation


def peak_gib(real: RealSize, run: Callable[[RealSize], None]) -> float:
    real.gpu.peak_bytes = real.gpu.bytes
    run(real)
    return real.gpu.peak_bytes / 2**30


def generate_and_train(real: RealSize) -> None:
    """A roll-out beside all examples of an epoch, and a training step.

    Examples are of other steps than clock 2's, as many: so the second follows at once.
    """
    cfg, sampler = compose_config("train", [f"teacher={real.teacher.name}"]), real.sampler
    source = TrajectoryExamples(replace(sampler, steps=cfg.steps, schedule=Schedule.parse("2,3,4,5")))
    sizes = (cfg.prompts_per_epoch, cfg.repeats_per_epoch, cfg.batch_size, cfg.generation_batch_size)
    prompts = scene_prompts("train", cfg.prompts_per_epoch)
    data = OnlineDataModule(source, prompts, *sizes, max_gb=cfg.max_examples_gb, examples_device="device")
    rounds = data.rounds(0)
    data.store.clear(max(sum(batch.examples for batch in part) for part in rounds))
    for part in islice(source.parts(rounds[0][0].items, 1, 0), 2):
        data.store.append(part)
    assert sampler.adaptor is not None
    optimizer = torch.optim.Adam(sampler.adaptor.parameters())
    (batch,) = data.store.batches([torch.arange(cfg.batch_size)])
    real.gpu.training = True
    AdaptorDistillation(sampler.adaptor, [2], sampler.guidance, guided=1.0).training_step(batch).backward()
    optimizer.step()
    real.gpu.training = False


def generate_and_score(real: RealSize) -> None:
    """A full step, decoding and scoring, the CLIP that scores beside the teacher."""
    cfg = compose_config("evaluate", [f"teacher={real.teacher.name}"])
    scorer = OpenCLIP("ViT-g-14", None, GPU)
    with torch.no_grad():
        features = scorer.encode_image(torch.zeros(8, 3, 224, 224, dtype=torch.uint8))
    assert (features.device, features.dtype) == (GPU, torch.float32)
    half = ResNet(real.dims).to(GPU, torch.float16)
    prompts = scene_prompts("test", cfg.batch_size)
    noise = real.teacher.noise([p.id for p in prompts])
    record = next(replace(real.sampler, adaptor=half).rollout([p.text for p in prompts], noise))
    real.teacher.decode(record.latents)


@pytest.mark.slow  # all layers
@pytest.mark.parametrize("name", BARS)
def test_training_and_evaluation_fit(name: str) -> None:
    with initialize_config_dir(CONFIGS, version_base="1.3"), alone(name) as real:
        training, evaluation = peak_gib(real, generate_and_train), peak_gib(real, generate_and_score)
    print(f"{name}: training {training:.1f} GiB, evaluation {evaluation:.1f} GiB")
    assert training < BARS[name][0] and evaluation < BARS[name][1]
