"""FLOPs of an edit: the paper's equations 4 to 6, with the steps that really run."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from clockwork.flops.cost import step_flops
from clockwork.flops.counter import Flops
from clockwork.schedule import Schedule

if TYPE_CHECKING:
    from clockwork.editing.edit import Editor


def edit_flops(editor: "Editor", edits: int = 1) -> Flops:
    """Counts the FLOPs of inverting an image and generating one of its edits.

    Without the two savings these are equations 4 to 6 with `ceil(n / N)` full steps. As in the paper, the inversion is
    counted in full for each edit. What `replay` records is divided among the image's edits.

    Args:
        editor: The editor.
        edits: Number of edits per image.

    Returns:
        The FLOPs.
    """
    inversion = step_flops(editor.inversion)
    same_adaptor = editor.inversion.adaptor is editor.generation.adaptor
    generation = inversion if same_adaptor else step_flops(editor.generation)
    schedule, calls = editor.generation.schedule, editor.generation.num_unet_calls
    cost = _first_steps(inversion, editor.inversion.schedule, editor.inversion.num_unet_calls)
    cost += _first_steps(generation, schedule, calls) * editor.unet_calls_per_step
    if not editor.replay:
        source_steps = calls if editor.keep_source else editor.injection.steps
        return cost + _first_steps(generation, schedule, source_steps)
    recorded = _first_steps(generation, schedule, editor.injection.steps)
    return cost + Flops(*(count // edits for count in asdict(recorded).values()))


def _first_steps(step: tuple[Flops, Flops], schedule: Schedule, count: int) -> Flops:
    """Returns the FLOPs of the first steps at batch 1, from those of a full step and of an adaptor step."""
    full_steps = sum(schedule.is_full(number) for number in range(1, 1 + count))
    return step[0] * full_steps + step[1] * (count - full_steps)
