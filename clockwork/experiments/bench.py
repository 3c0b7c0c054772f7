"""Times the parts against each other."""

import copy
from collections.abc import Callable
from itertools import cycle
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.utils.benchmark import Timer

import clockwork
from clockwork.adaptors import Identity, Linear
from clockwork.experiments.build import make_sampler
from clockwork.io.progress import progress_bar
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.solvers import make_solver


def cases(cfg: DictConfig) -> dict[str, tuple[Callable[[], Any], str | None]]:
    """What is timed, and what it stands against."""
    teacher = instantiate(cfg.teacher)
    full = make_sampler(cfg, teacher)
    dims = feature_dims(teacher, str(cfg.cut))
    clocked = make_sampler(cfg, teacher, Identity(dims), "identity")
    maps = Linear(dims, clocked.schedule.adaptor_steps(clocked.num_unet_calls)).to(teacher.device, teacher.unet.dtype)
    linear = make_sampler(cfg, teacher, maps.requires_grad_(False), "linear")
    captions = ["a large red circle on a plain blue background"] * cfg.batch
    noise, tokens = teacher.noise(list(range(cfg.batch))), teacher.encode(captions).prompt_embeds
    t = torch.tensor(500, device=teacher.device)
    e = full.split.embed(noise, t, tokens)
    high = full.split.high_in(e)
    r_out = full.split.low(high, e)
    # steps through `clockwork.enable`, of a UNet of its own: what the hook costs
    pipe = SimpleNamespace(unet=copy.deepcopy(teacher.unet), scheduler=make_solver("ddim", teacher.noise_schedule))
    pipe.scheduler.set_timesteps(50)
    timesteps = cycle(pipe.scheduler.timesteps)
    clockwork.enable(pipe, schedule="full", cut=full.split.cut)
    call = {"latents": noise, "num_inference_steps": full.steps, "guidance_scale": cfg.guidance}
    return {
        "the UNet": (lambda: teacher.unet(noise, t, tokens), None),
        "the UNet in two parts": (lambda: full.split(noise, t, tokens), "the UNet"),
        "the UNet with the hook": (lambda: pipe.unet(noise, next(timesteps), tokens), "the UNet in two parts"),
        "an identity step": (lambda: full.split.high_out(r_out, full.split.high_in(e), e), "the UNet"),
        "diffusers' pipeline": (lambda: teacher.pipe(captions, **call, output_type="latent"), None),
        "the roll-out": (lambda: full.latents(captions, noise), "diffusers' pipeline"),
        f"the roll-out, identity {clocked.schedule}": (lambda: clocked.latents(captions, noise), "the roll-out"),
        f"the roll-out, linear {linear.schedule}": (
            lambda: linear.latents(captions, noise),
            f"the roll-out, identity {clocked.schedule}",
        ),
    }


def bench(cfg: DictConfig) -> None:
    """Prints a table of times in ms, each with its ratio to what it is compared with."""
    with torch.no_grad():
        timed = cases(cfg)
        times: dict[str, list[float]] = {name: [] for name in timed}
        rounds = range(cfg.rounds)  # in turns, so that a busy spell hits all alike
        for _ in progress_bar(rounds, "rounds", leave=False):
            for name, (call, _) in timed.items():
                times[name].append(Timer("call()", globals={"call": call}).timeit(1).mean * 1000)
    print("| what | ms (median) | ratio | to |\n|---|---|---|---|")
    for name, (_, against) in timed.items():
        ratios = [a / b for a, b in zip(times[name], times[against or name], strict=True)]
        print(f"| {name} | {median(times[name]):.1f} | {median(ratios):.3f} | {against or '–'} |")
