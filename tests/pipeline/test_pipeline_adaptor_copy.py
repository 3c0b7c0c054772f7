"""A pipeline runs its own copy of an adaptor, on the UNet's device and in its precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pipelines import GIVEN, counts, generate, miniature_pipeline, reasons, steps

import clockwork
from clockwork.adaptors import ResNet
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import CALL_CHANGED
from clockwork.teachers import Teacher


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, teacher: Teacher, trained: Path) -> None:
    """A float32 adaptor folder on a UNet in half precision, and back again without a loss.

    A copy in float16 is the same teacher; in bfloat16 its weights are others, so it is enabled before.
    """
    pipe = miniature_pipeline(teacher)
    noise = teacher.noise([0])  # some versions of torch draw other noise in half precision
    clockwork.enable(pipe, adaptor=trained)
    expected = generate(pipe, latents=noise, **GIVEN)
    weights = {name: weight.clone() for name, weight in enabled_hook(pipe).denoiser.adaptor.state_dict().items()}
    half = generate(pipe.to(dtype), latents=noise.to(dtype), **GIVEN)
    adaptor = enabled_hook(pipe).denoiser.adaptor
    assert steps(pipe) == "FaFa" and half.dtype == adaptor.dtype == dtype
    assert (half.float() - expected).norm() < 0.1 * expected.norm()
    if dtype == torch.float16:
        clockwork.enable(pipe, adaptor=trained)
        assert torch.equal(generate(pipe, latents=noise.to(dtype), **GIVEN), half)
    pipe.to(torch.float32)
    generate(pipe, **GIVEN)
    found = enabled_hook(pipe).denoiser.adaptor.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_the_callers_module_stays_as_it_is(teacher: Teacher, trained: Path) -> None:
    """In training, with gradients, in its precision; on two pipelines of different precisions at the same time."""
    pipes = [miniature_pipeline(teacher), miniature_pipeline(teacher).to(torch.bfloat16)]
    adaptor = silent(trained).train().requires_grad_(True)
    before = {name: weight.clone() for name, weight in adaptor.state_dict().items()}
    grads = []
    for weight in adaptor.parameters():
        weight.grad = torch.ones_like(weight)
        grads.append(weight.grad)
    for pipe in pipes:
        clockwork.enable(pipe, adaptor=adaptor)
    first, _, again = (generate(pipe, **GIVEN) for pipe in (*pipes, pipes[0]))
    assert torch.equal(first, again) and all(counts(pipe) == (2, 2) for pipe in pipes)
    assert adaptor.training and all(weight.requires_grad for weight in adaptor.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in adaptor.state_dict().items())
    assert all(weight.grad is grad for weight, grad in zip(adaptor.parameters(), grads, strict=True))
    copies = [enabled_hook(pipe).denoiser.adaptor for pipe in pipes]
    assert [copied.dtype for copied in copies] == [torch.float32, torch.bfloat16]
    assert all(weight.grad is None and not weight.requires_grad for copied in copies for weight in copied.parameters())
    with torch.no_grad():
        for weight in adaptor.parameters():
            weight.zero_()
    assert torch.equal(generate(pipes[0], **GIVEN), first)  # training goes on without the pipeline


def silent(trained: Path) -> ResNet:
    """Random weights, and no text."""
    torch.manual_seed(1)
    adaptor = ResNet(clockwork.load_adaptor(trained)[0].dims, 16, 1, ("r_in", "r_out_prev", "t_emb"))
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return adaptor


def test_the_adaptor_is_placed_once_per_precision(teacher: Teacher, trained: Path) -> None:
    """Not per step and not per image; in the middle of an image the new form makes a full step first."""
    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=silent(trained))
    generate(pipe, **GIVEN)
    at_first = enabled_hook(pipe).denoiser.adaptor
    generate(pipe, **GIVEN, seed=5)
    assert enabled_hook(pipe).denoiser.adaptor is at_first
    pipe.scheduler.set_timesteps(6)
    tokens = torch.randn(1, 77, pipe.unet.config.cross_attention_dim)
    given = {dtype: tokens.to(dtype) for dtype in (torch.float32, torch.float64)}
    size = pipe.unet.config.sample_size
    with torch.no_grad():
        for i, t in enumerate(pipe.scheduler.timesteps):
            dtype = torch.float32 if i < 3 else torch.float64
            output = pipe.unet.to(dtype)(torch.ones(1, 4, size, size, dtype=dtype), t, given[dtype]).sample
            assert output.dtype == dtype
    assert steps(pipe) == "FaFFFa" and reasons(pipe) == [CALL_CHANGED]
    assert enabled_hook(pipe).denoiser.adaptor.dtype == torch.float64


def test_an_image_in_inference_mode_leaves_ordinary_weights(teacher: Teacher, trained: Path) -> None:
    """Tensors made in inference mode cannot take part in autograd: a later loop with gradients gets ordinary ones."""
    pipe, adaptor = miniature_pipeline(teacher).to(torch.float64), silent(trained)
    with torch.inference_mode():
        clockwork.enable(pipe, adaptor=adaptor)
        generate(pipe, **GIVEN)
    pipe.scheduler.set_timesteps(2)
    size = pipe.unet.config.sample_size
    sample = torch.ones(1, 4, size, size, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(1, 77, pipe.unet.config.cross_attention_dim, dtype=torch.float64)
    outputs = [pipe.unet(sample, t, tokens).sample for t in pipe.scheduler.timesteps]
    assert steps(pipe) == "Fa"
    (grad,) = torch.autograd.grad(outputs[1].sum(), sample)
    assert grad.isfinite().all() and grad.any()


def test_a_compiled_adaptor(teacher: Teacher, trained: Path) -> None:
    """torch.compile's module stays compiled; what `Module.compile` did is lost with the copy, and said."""
    runs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        def run(*inputs: Any) -> Any:
            runs.append(1)
            return graph.forward(*inputs)

        return run

    pipe, adaptor = miniature_pipeline(teacher), silent(trained)
    clockwork.enable(pipe, adaptor=adaptor)
    expected = generate(pipe, **GIVEN)
    torch._dynamo.reset()
    clockwork.enable(pipe, adaptor=torch.compile(adaptor, backend=backend))
    assert torch.equal(generate(pipe, **GIVEN), expected) and len(runs) == 2
    adaptor.compile(backend=backend)
    with pytest.warns(UserWarning, match=r"pass torch.compile\(adaptor\)"):
        clockwork.enable(pipe, adaptor=adaptor)
    assert torch.equal(generate(pipe, **GIVEN), expected) and len(runs) == 2
    torch._dynamo.reset()
