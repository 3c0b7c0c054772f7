"""Times the parts against each other: `python scripts/bench.py`, or `teacher=sd15` on a GPU. `make bench`."""

from _command import command
from omegaconf import DictConfig


@command("bench")
def main(cfg: DictConfig) -> None:
    from functools import partial
    from statistics import median

    import torch
    from _compose import make_setup
    from hydra.utils import instantiate
    from torch.utils.benchmark import Timer
    from tqdm import tqdm

    from clockwork.adaptors import Identity
    from clockwork.setup import widths

    teacher = instantiate(cfg.teacher)
    full = make_setup(cfg, teacher)
    clocked = make_setup(cfg, teacher, Identity(widths(teacher, str(cfg.cut))), "identity")
    captions = ["a large red circle on a plain blue background"] * cfg.batch
    noise, tokens = teacher.noise(list(range(cfg.batch))), teacher.encode(captions).tokens
    t = torch.tensor(500, device=teacher.device)
    e = full.split.embed(noise, t, tokens)
    high = full.split.high_in(e)
    r_out = full.split.low(high, e)

    def pipeline() -> None:
        pipe, steps = teacher.pipe, full.steps
        pipe(captions, latents=noise, num_inference_steps=steps, guidance_scale=cfg.guidance, output_type="latent")

    cases = {  # what is timed, and what it stands against
        "the UNet": (lambda: teacher.unet(noise, t, tokens), None),
        "the UNet in two parts": (lambda: full.split(noise, t, tokens), "the UNet"),
        "an identity step": (lambda: full.split.high_out(r_out, full.split.high_in(e), e), "the UNet"),
        "diffusers' pipeline": (pipeline, None),
        "the roll-out": (partial(full.latents, captions, noise), "diffusers' pipeline"),
        f"the roll-out, identity {clocked.schedule}": (partial(clocked.latents, captions, noise), "the roll-out"),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    with torch.no_grad():
        for _ in tqdm(range(cfg.rounds), "rounds", leave=False):  # in turns, so that a busy spell hits all alike
            for name, (call, _) in cases.items():
                times[name].append(Timer("call()", globals={"call": call}).timeit(1).mean * 1000)
    print("| what | ms (median) | ratio | to |\n|---|---|---|---|")
    for name, (_, against) in cases.items():
        ratios = [a / b for a, b in zip(times[name], times[against or name], strict=True)]
        print(f"| {name} | {median(times[name]):.1f} | {median(ratios):.3f} | {against or '–'} |")


if __name__ == "__main__":
    main()
