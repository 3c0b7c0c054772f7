"""A teacher whose roll-outs are compiled: the same latents, and rows of its own."""

import pytest
import torch
from hydra import initialize_config_dir
from hydra.utils import instantiate

from clockwork.adaptors import Identity
from clockwork.experiments.build import make_sampler
from clockwork.experiments.configs import FOLDER, compose_config


@pytest.mark.slow
def test_a_compiled_teacher_samples_the_same_latents() -> None:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        configs = [
            compose_config("evaluate", ["schedule=clock2", "steps=2", "adaptor=identity", f"teacher.compile={value}"])
            for value in ("false", "{backend: eager}")
        ]
    samplers = [make_sampler(cfg, instantiate(cfg.teacher), Identity(), "identity") for cfg in configs]
    noise = samplers[0].teacher.noise([0, 1], 0)
    latents = [sampler.latents(["a red circle", "a green star"], noise) for sampler in samplers]
    assert torch.equal(*latents)
    identities = [sampler.identity() for sampler in samplers]
    assert "compile" not in identities[0] and identities[1]["compile"] == "{'backend': 'eager'}"
