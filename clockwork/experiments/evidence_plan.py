"""Cost of `make evidence`, computed before it starts, and a bar over its rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.adaptors import Identity
from clockwork.data.prompts import Prompt, prompts_hash
from clockwork.evaluation.plan import EvaluationPlan, evaluation_plan, run_trial
from clockwork.evaluation.rows import read_rows
from clockwork.evaluation.text_to_image import full_teacher
from clockwork.experiments.build import at_difference, build_sampler, make_sampler, weightless_adaptor
from clockwork.io.progress import progress_bar
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Teacher

INTERVAL = 2.0  # seconds between two looks at the rows
FIELDS = (
    "teacher",
    "cut",
    "schedule",
    "solver",
    "steps",
    "guidance",
    "resolution",
    "adaptor",
    "prompts",
    "seed",
    "fit",
)


@dataclass(frozen=True)
class WantedRows:
    """The rows of some operating points with several seeds, of which some are measured.

    Attributes:
        samplers: The operating point of each row, by the values of `FIELDS`. Adaptors with weights, which may not exist
            yet, are replaced by the identity, which costs less.
        prompts: The prompts.
        file: The file of the rows.
    """

    samplers: Mapping[tuple[Any, ...], Sampler]
    prompts: Sequence[Prompt]
    file: Path

    def missing(self) -> list[tuple[Any, ...]]:
        """Returns the keys of the rows that are not measured."""
        measured = {tuple(row.get(name) for name in FIELDS) for row in read_rows(self.file)}
        return [key for key in self.samplers if key not in measured]

    def plan(self, note: str) -> EvaluationPlan:
        """Plans the rows that are missing, as if none of their images existed.

        Args:
            note: What the time leaves out.
        """
        missing = self.missing()
        images = {key: self.samplers[key] for key in missing}
        for key in missing:  # with whose images theirs are compared
            teacher = full_teacher(self.samplers[key])
            images[_key(teacher, "none", key[-3:-1], None)] = teacher
        trial = run_trial(self.samplers[missing[0]], self.prompts) if missing else None
        work = [(sampler, len(self.prompts)) for sampler in images.values()]
        return evaluation_plan(work, len(missing), trial, note=note)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Shows a bar over the rows, those included that were measured before, while other processes measure them."""
        ended = Event()
        count = len(self.samplers)
        with progress_bar(total=count, initial=self._count(), desc="rows", unit="row", smoothing=0) as bar:

            def watch() -> None:
                while not ended.wait(INTERVAL):
                    bar.update(self._count() - bar.n)

            thread = Thread(target=watch, daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
                bar.update(self._count() - bar.n)

    def _count(self) -> int:
        return len(self.samplers) - len(self.missing())


def wanted_rows(
    cfg: DictConfig, points: Sequence[Mapping[str, Any]], runs: Sequence[tuple[int, int | None]]
) -> WantedRows:
    """Collects the rows of an evaluation. Loads the teacher.

    Args:
        cfg: The config of the evaluation.
        points: Operating points, as differences from the config.
        runs: Seeds of noise and fit.
    """
    prompts, teacher = instantiate(cfg.prompts), instantiate(cfg.teacher)
    samplers = {}
    for name, sampler, has_weights in (_sampler(cfg, teacher, point) for point in points):
        for seed, fit in runs:
            key = _key(sampler, name, (prompts_hash(prompts), seed), fit if has_weights else None)
            samplers[key] = sampler
    return WantedRows(samplers, prompts, Path(cfg.output) / "rows.jsonl")


def _sampler(cfg: DictConfig, teacher: Teacher, point: Mapping[str, Any]) -> tuple[str, Sampler, bool]:
    """Returns the name of an adaptor or rival, the operating point, and whether the adaptor has weights."""
    name, at_point = at_difference(cfg, point)
    if name == "none" or weightless_adaptor(cfg, name) is not None:
        sampler = build_sampler(cfg, teacher, point)
        return sampler.adaptor_name, sampler, False
    return name, make_sampler(at_point, teacher, Identity(feature_dims(teacher, str(at_point.cut))), name), True


def _key(sampler: Sampler, adaptor: str, prompts_and_seed: Sequence[Any], fit: int | None) -> tuple[Any, ...]:
    """Returns the values of `FIELDS`."""
    point = asdict(sampler.point)
    return (*(point[name] for name in FIELDS[:7]), adaptor, *prompts_and_seed, fit)
