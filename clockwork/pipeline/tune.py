"""`tune`: calibrates several cuts and schedules, and measures what each costs and how near its results come."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from clockwork.adaptors import Identity, Linear
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError, check_number, check_whole
from clockwork.flops.counter import Flops
from clockwork.io.progress import progress_bar
from clockwork.pipeline.calibrate import calibrate_call
from clockwork.pipeline.compiling import pipeline_functions
from clockwork.pipeline.enable import disable, enable, replace_hook, whole_unet
from clockwork.pipeline.hook import ClockHook, get_hook
from clockwork.pipeline.measure import Measured, measure
from clockwork.pipeline.menu import QUALITIES, Menu, MenuEntry
from clockwork.pipeline.menu_inputs import MenuInputs
from clockwork.pipeline.parts import get_unet, pipeline_name, unet_fingerprint
from clockwork.pipeline.summary import summarise
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.schedule import Schedule
from clockwork.unet.split import SplitUNet

CUTS = ("layer1", "stage1_upsampled")
SCHEDULES = ("clock2", "clock3", "clock4")


def tune(
    pipe: Any,
    prompts: Sequence[str] | None = None,
    cuts: Sequence[str] = CUTS,
    schedules: Sequence[str] = SCHEDULES,
    *,
    budget: float | None = None,
    quality: str | None = None,
    num_measured: int = 8,
    options: FitOptions | None = None,
    seed: int = 0,
    runs: int = 3,
    compile: bool | Mapping[str, Any] | None = None,
    **call: Any,
) -> Menu:
    """Calibrates each cut with each schedule, measures all of them, prints the menu, and enables one on request.

    Every entry is calibrated on its own roll-out, because its later steps depend on its earlier ones. So this takes
    about as long as generating the prompts once per entry.

    Args:
        pipe: A diffusers pipeline with a UNet, for images or videos.
        prompts: Some dozens of prompts; by default 64 captions that come with Clockwork. None for a pipeline that makes
            videos of images, which are then in `call`: `image`, a list of some dozens.
        cuts: Names of the cuts.
        schedules: The schedules.
        budget: Largest time, as a share of that without Clockwork, such as 0.6. The nearest entry within it is enabled.
        quality: `high`, `balanced` or `fast`: at least 35, 28 or 22 dB PSNR to the images without Clockwork
            (`QUALITIES`). The fastest entry that reaches it is enabled.
        num_measured: How many of the prompts or images, the last ones, are not fitted on but measured.
        options: How the maps are fitted.
        seed: Seed of the noise.
        runs: How many calls are timed per entry.
        compile: Whether entries are measured and enabled with compiled steps, as in `enable`; each entry compiles its
            own graphs. The UNet without Clockwork is then compiled with the same options, so that times are comparable.
        **call: Arguments of the pipeline's own call; see `calibrate`.

    Returns:
        The menu. Without a budget and a quality, the pipeline is left as it was before.

    Raises:
        UserError: If an argument is wrong, or no entry is within the budget or reaches the quality.

    Example:
        >>> menu = clockwork.tune(pipe, prompts, budget=0.6, num_inference_steps=8, guidance_scale=7.5)
    """
    cuts, schedules = _listed("cuts", cuts), _listed("schedules", schedules)
    unet, inputs = get_unet(pipe), MenuInputs.of(pipe, prompts, call)
    _check(inputs, budget, quality, num_measured, runs)
    _check_entries(unet, cuts, schedules, call)
    fitted, held_out = inputs[:-num_measured], inputs[-num_measured:]
    previous, chosen = get_hook(unet), None
    pairs = [(cut, schedule) for cut in cuts for schedule in schedules]
    try:
        _enable_full(pipe, compile)
        reference = measure(pipe, held_out, seed, runs)
        teacher, entries = (pipeline_name(pipe), unet_fingerprint(unet)), []
        for cut, schedule in progress_bar(pairs, "menu", unit="entry"):
            texts, arguments = fitted.prompts, fitted.call
            adaptor = calibrate_call(pipe, texts, schedule, cut, arguments, options, seed, compile, teacher)
            entries.append(_entry(pipe, cut, schedule, adaptor, measure(pipe, held_out, seed, runs), reference))
        by_psnr = tuple(sorted(entries, key=lambda entry: -entry.psnr))
        menu = Menu(by_psnr, held_out.names, reference.images, compile=compile)
        chosen = _choose(menu, budget, quality)
    finally:
        replace_hook(pipe, previous)
    menu = replace(menu, chosen=chosen)
    if chosen is not None:
        enable(pipe, chosen.schedule, chosen.adaptor, chosen.cut, compile=compile)
    print(menu)
    return menu


def _enable_full(pipe: Any, compile: bool | Mapping[str, Any] | None) -> None:
    """Leaves the pipeline the full UNet, whose steps are compiled on request."""
    disable(pipe)
    if compile:
        functions = pipeline_functions(whole_unet(pipe), compile)
        denoiser = ClockworkDenoiser(SplitUNet(get_unet(pipe)), Identity(), Schedule(), functions)
        replace_hook(pipe, ClockHook(pipe, denoiser, (pipeline_name(pipe), "")))


def _listed(name: str, values: Iterable[str]) -> list[str]:
    """Returns an argument as a list; also that of a generator, which can be read only once."""
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
    if not listed:
        raise UserError(f"a menu needs lists of cuts and schedules: pass at least one of each as {name}=[…]")
    return listed


def _check_entries(unet: Any, cuts: Sequence[str], schedules: Sequence[str], call: Mapping[str, Any]) -> None:
    """Refuses cuts that do not fit the UNet, and schedules without a full or without an adaptor step."""
    for cut in cuts:
        SplitUNet(unet, cut)
    steps = call.get("num_inference_steps")
    for schedule in map(Schedule.parse, schedules):
        if isinstance(steps, int) and steps > 0:
            schedule.adaptor_steps(steps + 1)  # refuses one that is too long, also for solvers of one more call
        if schedule == Schedule() or not schedule.is_full(1):
            raise UserError(f"schedule {schedule} cannot be calibrated: use one with full and adaptor steps as clock2")


def _check(inputs: MenuInputs, budget: float | None, quality: str | None, num_measured: int, runs: int) -> None:
    """Refuses wrong arguments before any work."""
    check_whole("runs", runs, 1)
    if budget is not None and not 0 < check_number("budget", budget, 0) < 1:
        raise UserError(f"budget {budget} is a share of the time without Clockwork: pass a number between 0 and 1")
    if quality is not None and quality not in tuple(QUALITIES):
        raise UserError(f"quality {quality!r} is not known: use {', '.join(QUALITIES)}")
    if not 1 <= check_whole("num_measured", num_measured, 1) < len(inputs.names):
        kind = "images" if inputs.prompts is None else "prompts"
        raise UserError(f"{num_measured} of {len(inputs.names)} {kind} cannot be measured: leave some to fit on")


def _entry(pipe: Any, cut: str, schedule: str, adaptor: Linear, measured: Measured, reference: Measured) -> MenuEntry:
    """Compares an entry with the pipeline without Clockwork."""
    summary, count = summarise(pipe), len(measured.images)
    return MenuEntry(
        cut,
        schedule,
        adaptor,
        _per_image(summary.flops, count),
        _per_image(summary.flops_without, count),
        measured.milliseconds,
        reference.milliseconds,
        measured.relative_l2(reference),
        measured.psnr(reference),
        measured.images,
    )


def _per_image(flops: Flops, count: int) -> Flops:
    """Divides the FLOPs of a batch by its number of images or videos."""
    return Flops(**{name: value // count for name, value in asdict(flops).items()})


def _choose(menu: Menu, budget: float | None, quality: str | None) -> MenuEntry | None:
    """Returns the entry that budget and quality ask for; None if neither is given."""
    if budget is None and quality is None:
        return None
    bound = 0.0 if quality is None else QUALITIES[quality]
    allowed = [e for e in menu.entries if (budget is None or e.time_share <= budget) and e.psnr >= bound]
    if not allowed:
        print(menu)
        raise UserError(
            "no entry of the menu is within the budget and near enough: allow more, or pass other schedules"
        )
    return max(allowed, key=lambda entry: entry.psnr) if quality is None else min(allowed, key=lambda e: e.time_share)
