"""Every FLOPs and parameter figure of the paper beside ours: `flops.csv` (docs/flops.md)."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from clockwork.flops import editing as editing_flops
from clockwork.flops.counter import Flops
from clockwork.flops.paper_models import RealPoint, RealSize
from clockwork.io.atomic import atomic_write
from clockwork.reports.formats import markdown
from clockwork.reports.paper.published import NOTES, PUBLISHED, convention
from clockwork.schedule import Schedule

Spec = Mapping[str, Any]  # of a table or figure: its columns and operating points, as in configs/table
COLUMNS = ["figure", "row", "quantity", "paper", "ours", "relative_error", "convention"]
COUNTED = {"tflops", "gflops", "gflops_of_two", "saving", "parameters"}
UNITS = {"flops": 1.0, "gmacs": 1e9, "gflops": 1e9, "gflops_of_two": 1e9, "tflops": 1e12}


@dataclass(frozen=True)
class Line:
    """One figure. `paper` is None where the paper prints none in this convention."""

    figure: str
    row: str
    quantity: (
        str  # flops; gmacs, gflops (a pass), gflops_of_two (a step at batch 2), tflops; saving (%); parameters (M)
    )
    paper: Decimal | None
    ours: float
    convention: str  # macs, paper or full; parameters have none

    @property
    def relative_error(self) -> float | None:
        """To the nearest number that is printed as the paper's figure is, rounded or cut off after its digits: 5.9 may
        stand for 5.85 to 6.0 (the paper does both: 7.2998 is its 7.3, 287.99 its 287)."""
        if self.paper is None:
            return None
        printed, digit = float(self.paper), 10.0 ** int(self.paper.as_tuple().exponent)
        if printed == 0:
            return 0.0 if self.ours == 0 else None
        nearest = min(max(self.ours, printed - digit / 2), printed + digit)
        return (self.ours - nearest) / printed

    def cells(self) -> list[str]:
        row = f"{self.row} — {NOTES[self.row]}" if self.row in NOTES else self.row
        error = self.relative_error
        paper = "" if self.paper is None else str(self.paper)
        ours = str(self.ours) if isinstance(self.ours, int) else f"{self.ours:.9g}"
        return [self.figure, row, self.quantity, paper, ours, "" if error is None else f"{error:.5f}", self.convention]


def flops_lines(specs: Mapping[str, Spec], sizes: RealSize) -> Iterator[Line]:
    """Of the tables and figures by name ("table 1"), then Figure 8's blocks, and passes to the last digit."""
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


def real_point(point: Spec) -> RealPoint:
    """What a point does not say is the paper's default, whatever its teacher is made for: 8 steps, clock 2, stage 1."""
    said = {name: point[name] for name in ("adaptor", "schedule", "cut", "solver", "steps") if name in point}
    return RealPoint(point.get("architecture") or point["teacher"], guided=point.get("guidance") != 1, **said)


def _lines(figure: str, row: str, quantity: str, flops: Flops) -> Iterator[Line]:
    """In the paper's convention of that figure, and in `full`."""
    own = convention(figure, row)
    printed = PUBLISHED.get(figure, {}).get(row, {}).get(quantity)
    for name in dict.fromkeys((own, "full")):
        unit = "gflops" if quantity == "gmacs" and name == "full" else quantity
        ours = getattr(flops, name) / UNITS[unit]
        yield Line(figure, row, unit, printed if name == own else None, ours, name)


def _parameters(figure: str, row: str, count: int) -> Line:
    return Line(figure, row, "parameters", PUBLISHED.get(figure, {}).get(row, {}).get("parameters"), count / 1e6, "")


def _saving(figure: str, row: str, base: Flops, flops: Flops) -> Iterator[Line]:
    printed = PUBLISHED.get(figure, {}).get(row, {}).get("saving")
    for name in ("paper", "full"):
        ours = 100 * (1 - getattr(flops, name) / getattr(base, name))
        yield Line(figure, row, "saving", printed if name == "paper" else None, ours, name)


def _point(figure: str, spec: Spec, columns: Sequence[str], sizes: RealSize) -> Iterator[Line]:
    point, row = real_point(spec), spec["row"]
    clocked = point.adaptor != "none"
    if "tflops" in columns:
        yield from _lines(figure, row, "tflops", sizes.image(point))
    full, adaptor = sizes.passes(point.architecture, point.cut, point.adaptor)
    if "gflops" in columns:
        yield from _lines(figure, row, "gflops", adaptor if clocked else full)
    if "gflops_of_two" in columns:
        yield from _lines(figure, row, "gflops_of_two", (adaptor if clocked else full) * 2)
    if "saving" in columns and clocked:
        teacher = RealPoint(point.architecture, solver=point.solver, steps=point.steps, guided=point.guided)
        yield from _saving(figure, row, sizes.image(teacher), sizes.image(point))
    if "parameters" in columns and clocked:
        yield _parameters(figure, row, sizes.adaptor_parameters(point))


def _editing(figure: str, spec: Spec, sizes: RealSize) -> Iterator[Line]:
    """Figures 6 and 15, as they are meant and run, then equations 4 to 6 in every reading."""
    for point in spec["points"]:
        full, adaptor = sizes.passes("sd15", adaptor=point["adaptor"])
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
    after = editing_flops.generation_steps(steps)
    for as_ran, count in ((True, "full steps that ran"), (False, "n div clock")):
        name = f"{row}, {count}"
        yield from _lines("equation 4", name, "tflops", editing_flops.inversion(steps, clock, full, adaptor, as_ran))
        for as_printed, reading in ((False, "with the bracket"), (True, "as printed")):
            arguments = (clock, full, adaptor, as_ran, as_printed)
            yield from _lines(f"equation 5 {reading}", name, "tflops", editing_flops.generation(after, *arguments))
            edit = editing_flops.editing(steps, *arguments)
            yield from _lines(f"equation 6 {reading}", name, "tflops", edit)
            yield from _saving(
                f"equation 6 {reading}",
                name,
                editing_flops.editing(steps, 1, full, adaptor, as_printed=as_printed),
                edit,
            )


def _passes(sizes: RealSize) -> Iterator[Line]:
    """One pass at batch 1 to the last digit, in all three conventions, and the UNets' parameters."""
    for architecture in ("sd15", "efficient", "distilled", "bk_sdm_base", "bk_sdm_small", "bk_sdm_tiny"):
        cuts = ["stage1"] if architecture != "sd15" else ["stage1", "stage1_upsampled", "stage2", *_DEEPCACHE]
        own = architecture in ("sd15", "efficient", "distilled")
        passes = {"full pass": sizes.passes(architecture, "stage1", "identity" if own else "none")[0]}
        if own:
            passes |= {f"identity pass, {cut}": sizes.passes(architecture, cut, "identity")[1] for cut in cuts}
        for name, flops in passes.items():
            for way in ("macs", "paper", "full"):
                yield Line("section 5", f"{architecture}, {name}", "flops", None, getattr(flops, way), way)
        printed = PUBLISHED["figure 8"]["Total"]["parameters"] if architecture == "sd15" else None
        count = sizes.parameters(architecture) / 1e6
        yield Line("section 5", architecture, "parameters", printed, count, "")


_DEEPCACHE = ("layer1", "layer2", "layer3")  # its branches 0, 1 and 2


def summary(lines: Sequence[Line]) -> str:
    """What the paper prints, ours in its convention and in `full`, as Markdown."""
    whole = {(line.figure, line.row, line.quantity): line.ours for line in lines if line.convention == "full"}
    cells = []
    for line in lines:
        if line.relative_error is not None:
            full = whole.get((line.figure, line.row, line.quantity))
            by_print = line.ours / float(line.paper) - 1 if line.paper else 0.0
            ours = [f"{line.ours:.5g}", f"{by_print:+.2%}", f"{line.relative_error:+.2%}", line.convention or "–"]
            named = [line.figure, line.row, line.quantity, str(line.paper)]
            cells.append([*named, *ours, "–" if full is None else f"{full:.5g}"])
    columns = ["figure", "row", "quantity", "paper", "ours", "difference", "relative_error", "convention", "ours, full"]
    return markdown(columns, cells)


def write_flops(lines: Iterable[Line], file: Path) -> None:
    """Whole or not at all."""
    with atomic_write(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *(line.cells() for line in lines)])


def read_flops(file: Path) -> list[Line]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            Line(
                line["figure"],
                line["row"].split(" — ")[0],
                line["quantity"],
                Decimal(line["paper"]) if line["paper"] else None,
                float(line["ours"]),
                line["convention"],
            )
            for line in csv.DictReader(stream)
        ]
