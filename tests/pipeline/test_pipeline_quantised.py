"""A UNet with quantised linear layers, whose weights are packed."""

from pathlib import Path

import pytest
import torch
from helpers.pipelines import generate, make, steps
from torch import nn

import clockwork
from clockwork.io.fingerprint import weights_hash


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch moves its quantisation
def test_packed_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is enabled, calibrated and summed up; another teacher than in float32, which `force=True` accepts."""
    pipe, _ = make()
    plain = weights_hash(pipe.unet)
    pipe.unet = torch.ao.quantization.quantize_dynamic(pipe.unet, {nn.Linear}, dtype=torch.qint8)
    assert weights_hash(pipe.unet) == weights_hash(pipe.unet) != plain
    prompts = ["a red circle", "a star", "a green square", "two cats", "a house", "a tree", "a dog", "a lamp"]
    adaptor = clockwork.calibrate(pipe, prompts, num_inference_steps=4, guidance_scale=5.0)
    generate(pipe)
    report = clockwork.summary(pipe)
    assert steps(pipe) == "FaFa" and report.uncounted is not None and report.flops.full == 0
    assert "FLOPs are not counted: the UNet has quantised layers" in capsys.readouterr().out
    clockwork.save_adaptor(tmp_path, adaptor, adaptor.point)
    other, _ = make()
    with pytest.raises(ValueError, match="force=True accepts it anyway"):
        clockwork.enable(other, adaptor=tmp_path)
    clockwork.enable(other, adaptor=tmp_path, force=True)
    generate(other)
    assert steps(other) == "FaFa"
