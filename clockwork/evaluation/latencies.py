"""Latencies of operating points, measured in turn and added to their rows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from clockwork.evaluation.rows import append_row
from clockwork.io import distributed
from clockwork.metrics.latency import device_name, measure_in_turn
from clockwork.sampling.sampler import Sampler

if TYPE_CHECKING:
    from clockwork.evaluation.text_to_image import Evaluation


def measure_latencies(points: Sequence[tuple["Evaluation", Sampler]]) -> None:
    """Adds the latency of one image's latents to rows, whose other figures stay as they are.

    Operating points without a latency on this device are timed in turn. Only the main process computes; the others wait
    after every run.

    Args:
        points: Operating points of one device, which have rows, each with its evaluation.
    """
    rows = [evaluation.find_row(point) for evaluation, point in points]
    devices = [None if row is None else row.get("latency_device") for row in rows]
    names = [device_name(point.teacher.device) for _, point in points]
    timed = distributed.from_main_process([one == other for one, other in zip(devices, names, strict=True)])
    missing = [number for number, done in enumerate(timed) if not done]
    if not missing:
        return
    runs = [points[number][0].one_image(points[number][1]) for number in missing]
    device = points[missing[0]][1].teacher.device
    for number, latency in zip(missing, measure_in_turn(runs, device, after_run=distributed.barrier), strict=True):
        if distributed.rank() == 0 and (row := rows[number]) is not None:
            append_row(points[number][0].rows, {**row, **asdict(latency)})
