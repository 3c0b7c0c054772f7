"""Clockwork on pipelines of every kind, each against the same pipeline without it: equality is exact."""

from typing import Any

import pytest
import torch
from helpers.pipelines import KINDS, PROMPT, counts, generate, make
from torch import Tensor

import clockwork
from clockwork.flops.counter import count_flops
from clockwork.pipeline.enable import enabled_hook


def without_and_with(pipe: Any, **arguments: Any) -> tuple[Tensor, Tensor]:
    """The pipeline's latents, and those of clock 2; on the way, that full steps and `disable` are exact."""
    plain = generate(pipe, **arguments)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(generate(pipe, **arguments), plain)
    clockwork.enable(pipe, schedule="clock2")
    clocked = generate(pipe, **arguments)
    full, adaptor = counts(pipe)
    assert full - adaptor in (0, 1) and adaptor > 0  # alternating
    assert not any(step.forced_full_reason for step in enabled_hook(pipe).log.steps)
    assert torch.equal(generate(pipe, **arguments), clocked)  # nothing stays behind
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe, **arguments), plain)
    assert clocked.isfinite().all() and not torch.equal(clocked, plain)
    return plain, clocked


@pytest.mark.parametrize("kind", KINDS)
def test_pipeline(kind: str) -> None:
    pipe, arguments = make(kind)
    without_and_with(pipe, **arguments)


def lora(pipe: Any) -> None:
    from peft import LoraConfig

    torch.manual_seed(5)
    pipe.unet.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v", "conv1"], init_lora_weights=False)
    )


def image_prompt(pipe: Any) -> dict[str, Any]:
    """An IP-Adapter with random weights, in the published format; its image's features are given."""
    torch.manual_seed(6)
    unet, width = pipe.unet, 16
    weights = {}
    for i, name in enumerate(n for n in unet.attn_processors if n.endswith("attn2.processor")):
        block = unet.get_submodule(name.removesuffix(".processor"))
        inner = block.to_k.out_features
        weights[f"{2 * i + 1}.to_k_ip.weight"] = torch.randn(inner, width) * 0.3
        weights[f"{2 * i + 1}.to_v_ip.weight"] = torch.randn(inner, width) * 0.3
    projection = {
        "proj.weight": torch.randn(4 * width, 10),
        "proj.bias": torch.randn(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}], low_cpu_mem_usage=False)
    return {"ip_adapter_image_embeds": [torch.randn(2, 1, 10)]}


def textual_inversion(pipe: Any) -> dict[str, Any]:
    pipe.load_textual_inversion(torch.randn(2, 16, generator=torch.Generator().manual_seed(7)), token="<thing>")
    return {"prompt": "a <thing> in the center"}


FEATURES: dict[str, Any] = {
    "no guidance": lambda pipe: {"guidance_scale": 1.0},
    "guidance rescale": lambda pipe: {"guidance_rescale": 0.7},
    "negative prompt": lambda pipe: {"negative_prompt": "a green star"},
    "several images per prompt": lambda pipe: {"num_images_per_prompt": 2},
    "several prompts": lambda pipe: {"prompt": ["a green star", "a red circle"], "negative_prompt": ["a", "b"]},
    "odd sizes": lambda pipe: {"height": 40, "width": 56},
    "float16": lambda pipe: pipe.to(torch.float16) and {},
    "bfloat16": lambda pipe: pipe.to(torch.bfloat16) and {},
    "FreeU": lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6) or {},
    "LoRA": lambda pipe: lora(pipe) or {},
    "LoRA scaled": lambda pipe: lora(pipe) or {"cross_attention_kwargs": {"scale": 0.4}},
    "IP-Adapter": image_prompt,
    "textual inversion": textual_inversion,
    "attention slicing": lambda pipe: pipe.enable_attention_slicing(1) or {},
    "VAE tiling": lambda pipe: (pipe.vae.enable_tiling(), pipe.vae.enable_slicing()) and {"output_type": "pt"},
    "prompt embeddings": lambda pipe: {
        "prompt": None,
        "prompt_embeds": torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(8)),
        "negative_prompt_embeds": torch.zeros(1, 5, 16),
    },
}


@pytest.mark.parametrize("feature", FEATURES)
def test_feature(feature: str) -> None:
    """Each changes the pipeline's own result, or it would prove nothing."""
    pipe, _ = make()
    before = generate(pipe)
    arguments = FEATURES[feature](pipe)
    plain, _ = without_and_with(pipe, **arguments)
    if feature not in ("attention slicing", "VAE tiling"):
        assert plain.shape != before.shape or not torch.equal(plain.float(), before)


def test_lora_fused_and_unfused_while_enabled() -> None:
    pipe, _ = make()
    lora(pipe)
    unfused = generate(pipe)
    clockwork.enable(pipe, schedule="full")
    pipe.unet.fuse_lora()
    fused = generate(pipe)
    assert torch.allclose(fused, unfused, atol=1e-3)
    pipe.unet.unfuse_lora()
    again = generate(pipe)
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe), again)
    pipe.unet.fuse_lora()
    assert torch.equal(generate(pipe), fused)


def test_controlnet_reaches_adaptor_steps_in_the_high_res_part_only() -> None:
    """Cut layer1 keeps one skip, conv_in's: of the ControlNet's residuals an adaptor step has its first alone."""
    pipe, arguments = make("StableDiffusionControlNetPipeline")
    net = pipe.controlnet
    clockwork.enable(pipe, cut="layer1")

    def blank(residuals: Any) -> Tensor:
        """`generate` with some residuals zero, on adaptor steps only."""
        hook = net.register_forward_hook(
            lambda _, __, output: residuals(*output) if len(enabled_hook(pipe).log.steps) % 2 else output
        )
        try:
            return generate(pipe, **arguments)
        finally:
            hook.remove()

    whole = generate(pipe, **arguments)
    none_low = blank(lambda down, mid: ([down[0], *(torch.zeros_like(r) for r in down[1:])], torch.zeros_like(mid)))
    none_high = blank(lambda down, mid: ([torch.zeros_like(down[0]), *down[1:]], mid))
    assert torch.equal(none_low, whole)
    assert not torch.equal(none_high, whole)


@pytest.mark.parametrize("interval", [2, 3])
def test_the_identity_at_layer1_is_deepcache(interval: int) -> None:
    from DeepCache import DeepCacheSDHelper

    pipe, _ = make()
    clockwork.enable(pipe, schedule=f"clock{interval}", cut="layer1")
    ours = generate(pipe, steps=5)
    clockwork.disable(pipe)
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    assert torch.equal(generate(pipe, steps=5), ours)


@pytest.mark.parametrize("name", ["clock2", "2,3", "full"])
def test_the_rollout_is_a_second_way(name: str) -> None:
    """The loop of training and evaluation, with its own guidance, gives what the enabled pipeline gives."""
    from clockwork.adaptors import FeatureDims, Identity
    from clockwork.sampling.rollout import rollout
    from clockwork.teachers import Condition

    pipe, _ = make()
    clockwork.enable(pipe, schedule=name)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(9))
    ours = generate(pipe, latents=noise)
    clockwork.disable(pipe)
    positive, negative = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, True)
    split = clockwork.SplitUNet(pipe.unet)
    denoiser = clockwork.ClockworkDenoiser(split, Identity(FeatureDims(0, 0, 0, 0)), clockwork.Schedule.parse(name))
    *_, last = rollout(denoiser, pipe.scheduler, 4, noise, Condition(positive), Condition(negative), 5.0)
    assert torch.equal(last.latents, ours)


def test_enabling_again_replaces() -> None:
    pipe, _ = make()
    clockwork.enable(pipe, schedule="clock4", cut="stage2")
    clockwork.enable(pipe, schedule="clock2", cut="1,2")
    twice = generate(pipe)
    other, _ = make()
    clockwork.enable(other, schedule="clock2", cut="1,2")
    assert torch.equal(generate(other), twice)
    with pytest.raises(ValueError, match="unknown cut"):
        clockwork.enable(pipe, cut="stage9")
    assert torch.equal(generate(pipe), twice)  # a mistake leaves what was there


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a schedule longer than the steps": ({"schedule": "2,8"}, "longer than the 4 steps"),
    "an unknown schedule": ({"schedule": "every2"}, "schedule 'every2' is not known"),
    "an unknown cut": ({"cut": "stage9"}, "unknown cut"),
    "no full step for an adaptor that reads the step before": ({"schedule": "always"}, "reads r_out of earlier steps"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_refused(mistake: str) -> None:
    arguments, said = REFUSED[mistake]
    pipe, _ = make()
    with pytest.raises(ValueError, match=said):
        clockwork.enable(pipe, **arguments)
        generate(pipe)


def test_other_denoisers_are_refused_by_name() -> None:
    from types import SimpleNamespace

    from diffusers import UNet1DModel

    unet = UNet1DModel(
        block_out_channels=(8, 8), down_block_types=("DownBlock1D",) * 2, up_block_types=("UpBlock1D",) * 2
    )
    with pytest.raises(
        ValueError, match="SimpleNamespace is not supported: cannot split a UNet1DModel: use a pipeline"
    ):
        clockwork.enable(SimpleNamespace(unet=unet))
    with pytest.raises(ValueError, match="has no UNet"):
        clockwork.enable(SimpleNamespace(transformer=None))


def test_a_summary_tells_steps_and_flops(capsys: pytest.CaptureFixture[str]) -> None:
    pipe, _ = make()
    with pytest.raises(ValueError, match="not enabled"):
        clockwork.summary(pipe)
    clockwork.enable(pipe)
    generate(pipe, steps=5)
    report = clockwork.summary(pipe)
    said = capsys.readouterr().out
    assert (report.full_steps, report.adaptor_steps, report.forced_full_steps) == (3, 2, {})
    assert "3 full and 2 adaptor steps" in said and "GFLOPs (paper)" in said and "GFLOPs (full)" in said
    text = torch.empty(2, pipe.tokenizer.model_max_length, 16)
    split = clockwork.SplitUNet(pipe.unet)
    counted = count_flops(lambda: split(torch.empty(2, 4, 16, 16), 1, text))  # on real tensors, without a hook
    assert report.flops_without == counted * 5
    assert 0.3 < report.flops.full / report.flops_without.full < 0.95
