"""Counts the FLOPs and parameters of the paper's tables and figures, from the architectures (docs/flops.md)."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from clockwork.flops import editing as editing_flops
from clockwork.flops.counter import Flops
from clockwork.flops.paper_models import PaperModelPoint, PaperModels
from clockwork.reports.paper.flops_audit import COUNTED, UNITS, Line, Spec
from clockwork.reports.paper.published import PUBLISHED, convention
from clockwork.schedule import Schedule

# The paper's cut, its code's, one level deeper, and DeepCache's branches 0, 1 and 2.
SD15_CUTS = ("stage1", "stage1_upsampled", "stage2", "layer1", "layer2", "layer3")


def flops_lines(specs: Mapping[str, Spec], sizes: PaperModels) -> Iterator[Line]:
    """Counts the FLOPs and parameters of the paper's tables and figures.

    Args:
        specs: Columns and operating points by names such as `table 1`, as in `configs/table` and `configs/figure`.
        sizes: The architectures at real size.

    Yields:
        The lines of these tables and figures, then of the blocks in Figure 8, then of single passes as exact integers.
    """
    for figure, spec in specs.items():
        if "inversion_steps" in spec:
            yield from _editing(figure, spec, sizes)
        elif set(spec.get("columns", ())) & COUNTED:
            for point in spec["points"]:
                yield from _point(figure, point, spec["columns"], sizes)
    for block, (flops, parameters) in sizes.blocks().items():
        yield from _lines("figure 8", block, "gmacs", flops)
        yield _parameters("figure 8", block, parameters)
    yield from _passes(sizes)


def real_point(point: Spec) -> PaperModelPoint:
    """Completes an operating point with the paper's defaults: 8 steps, clock 2, stage 1.

    Args:
        point: An operating point of a table or figure.

    Returns:
        The operating point at real size.
    """
    settings = {name: point[name] for name in ("adaptor", "schedule", "cut", "solver", "steps") if name in point}
    guided = point.get("guidance") is None or point["guidance"] > 1
    return PaperModelPoint(point.get("architecture") or point["teacher"], guided=guided, **settings)


def _lines(figure: str, row: str, quantity: str, flops: Flops) -> Iterator[Line]:
    """Yields one quantity in the paper's convention for that row, and in `full`."""
    papers_convention = convention(figure, row)
    printed = _printed(figure, row, quantity)
    for name in dict.fromkeys((papers_convention, "full")):
        unit = "gflops" if quantity == "gmacs" and name == "full" else quantity
        ours = getattr(flops, name) / UNITS[unit]
        yield Line(figure, row, unit, printed if name == papers_convention else None, ours, name)


def _printed(figure: str, row: str, quantity: str) -> Decimal | None:
    """Returns the paper's value, if it prints one."""
    return PUBLISHED.get(figure, {}).get(row, {}).get(quantity)


def _parameters(figure: str, row: str, count: int) -> Line:
    """Returns the line of a number of parameters."""
    return Line(figure, row, "parameters", _printed(figure, row, "parameters"), count / 1e6, "")


def _saving(figure: str, row: str, base: Flops, flops: Flops) -> Iterator[Line]:
    """Yields the share of FLOPs saved over a base, in %, in the conventions `paper` and `full`."""
    printed = _printed(figure, row, "saving")
    for name in ("paper", "full"):
        ours = 100 * (1 - getattr(flops, name) / getattr(base, name))
        yield Line(figure, row, "saving", printed if name == "paper" else None, ours, name)


def _point(figure: str, spec: Spec, columns: Sequence[str], sizes: PaperModels) -> Iterator[Line]:
    """Yields the counted columns of an operating point."""
    point, row = real_point(spec), spec["row"]
    clocked = point.adaptor != "none"
    if "tflops" in columns:
        yield from _lines(figure, row, "tflops", sizes.image(point))
    full, adaptor = sizes.full_and_adaptor_flops(point.architecture, point.cut, point.adaptor)
    single_pass = adaptor if clocked else full
    if "gflops" in columns:
        yield from _lines(figure, row, "gflops", single_pass)
    if "gflops_of_two" in columns:
        yield from _lines(figure, row, "gflops_of_two", single_pass * 2)
    if "saving" in columns and clocked:
        teacher = PaperModelPoint(point.architecture, solver=point.solver, steps=point.steps, guided=point.guided)
        yield from _saving(figure, row, sizes.image(teacher), sizes.image(point))
    if "parameters" in columns and clocked:
        yield _parameters(figure, row, sizes.adaptor_parameters(point))


def _editing(figure: str, spec: Spec, sizes: PaperModels) -> Iterator[Line]:
    """Yields Figures 6 and 15 as the edits run, and for Figure 6 also equations 4 to 6 in every reading."""
    for point in spec["points"]:
        full, adaptor = sizes.full_and_adaptor_flops("sd15", adaptor=point["adaptor"])
        clock = Schedule.parse(point["schedule"]).period if point["adaptor"] != "none" else 1
        for steps in spec["inversion_steps"]:
            row = f"{point['row']}, {steps} inversion steps"
            edit = editing_flops.editing(steps, clock, full, adaptor)
            yield from _lines(figure, row, "tflops", edit)
            if clock > 1:
                yield from _saving(figure, row, editing_flops.editing(steps, 1, full, adaptor), edit)
                if figure == "figure 6":
                    yield from _equations(row, steps, clock, full, adaptor)


def _equations(row: str, steps: int, clock: int, full: Flops, adaptor: Flops) -> Iterator[Line]:
    """Yields equations 4 to 6 with either count of full steps, and 5 and 6 with and without the missing bracket."""
    generation_steps = editing_flops.generation_steps(steps)
    for as_ran, count in ((True, "full steps that ran"), (False, "n div clock")):
        name = f"{row}, {count}"
        yield from _lines("equation 4", name, "tflops", editing_flops.inversion(steps, clock, full, adaptor, as_ran))
        for as_printed, reading in ((False, "with the bracket"), (True, "as printed")):
            arguments = (clock, full, adaptor, as_ran, as_printed)
            generation = editing_flops.generation(generation_steps, *arguments)
            yield from _lines(f"equation 5 {reading}", name, "tflops", generation)
            edit = editing_flops.editing(steps, *arguments)
            yield from _lines(f"equation 6 {reading}", name, "tflops", edit)
            base = editing_flops.editing(steps, 1, full, adaptor, as_printed=as_printed)
            yield from _saving(f"equation 6 {reading}", name, base, edit)


def _passes(sizes: PaperModels) -> Iterator[Line]:
    """Yields the passes of each UNet at batch 1 in all three conventions, and its parameters."""
    for architecture in ("sd15", "efficient", "distilled", "bk_sdm_base", "bk_sdm_small", "bk_sdm_tiny"):
        cuts = SD15_CUTS if architecture == "sd15" else ("stage1",)
        is_papers = architecture in ("sd15", "efficient", "distilled")  # a model that the paper runs with Clockwork
        flops_per_pass = {
            "full pass": sizes.full_and_adaptor_flops(architecture, "stage1", "identity" if is_papers else "none")[0]
        }
        if is_papers:
            flops_per_pass |= {
                f"identity pass, {cut}": sizes.full_and_adaptor_flops(architecture, cut, "identity")[1] for cut in cuts
            }
        for name, flops in flops_per_pass.items():
            for convention_name in ("macs", "paper", "full"):
                ours = getattr(flops, convention_name)
                yield Line("section 5", f"{architecture}, {name}", "flops", None, ours, convention_name)
        printed = PUBLISHED["figure 8"]["Total"]["parameters"] if architecture == "sd15" else None
        yield Line("section 5", architecture, "parameters", printed, sizes.parameters(architecture) / 1e6, "")
