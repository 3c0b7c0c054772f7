"""The paper's tables and figures, from `configs/table` and `configs/figure`, as operating points to run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from clockwork.errors import MissingFileError, UserError
from clockwork.experiments import config_files, configs
from clockwork.experiments.command import sentence

KINDS = ("table", "figure")
TRAINED_AT = ("cut", "schedule", "solver", "steps")  # what an adaptor belongs to, besides its teacher
DIFFERENCE = ("adaptor", "guidance", *TRAINED_AT)  # what a point says to an evaluation of its teacher


def numbers(kind: str) -> list[str]:
    return sorted((file.stem for file in (config_files.FOLDER / kind).glob("*.yaml")), key=int)


def _is_passed(key: str, overrides: Sequence[str]) -> bool:
    """Whether one of the user's overrides sets a key or a group."""
    return any(override.lstrip("+").startswith(f"{key}=") for override in overrides)


@dataclass(frozen=True)
class Table:
    """A table or figure at a scale. What a point does not say is its teacher's own."""

    kind: str
    number: str
    spec: dict[str, Any]  # title, columns, points; made_by where another script than evaluate.py makes it
    scale: dict[str, Any]
    overrides: tuple[str, ...] = ()  # of evaluations, the user's own

    @classmethod
    def load(cls, kind: str, number: Any, scale: str, overrides: tuple[str, ...] = ()) -> "Table":
        if str(number) not in numbers(kind):
            raise UserError(f"no {kind} {number}: there are {', '.join(numbers(kind))}")
        scaled = [override for override in overrides if override.startswith("scale.")]
        cfg = configs.compose_config("evaluate", [f"+{kind}='{number}'", f"scale={scale}", *scaled])
        spec: Any = OmegaConf.to_container(cfg[kind], resolve=True)
        common = {"teacher": spec.get("teacher"), "adaptor": "none"}
        spec["points"] = [{**common, **point} for point in spec.get("points", [])]
        scale_content: Any = OmegaConf.to_container(cfg.scale, resolve=True)
        rest = tuple(o for o in overrides if not o.lstrip("+").startswith((f"{kind}=", "scale=")))
        if any(override.startswith("teacher=") for override in rest):
            raise UserError(f"{kind} {number} names its teachers itself: pass scale.teachers.efficient=…, or another")
        return cls(kind, str(number), spec, scale_content, rest)

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "Table | None":
        """The one that a running evaluation is asked for by `+table=…` or `+figure=…`."""
        from hydra.core.hydra_config import HydraConfig

        run = HydraConfig.get()
        user_overrides = tuple(configs.user_overrides("evaluate", run.overrides.task))
        given = [kind for kind in KINDS if kind in cfg]
        for kind in given:
            ignored = [*given[1:], *(key for key in ("points", "sweep") if _is_passed(key, user_overrides))]
            if ignored:
                raise UserError(f"{kind}={run.runtime.choices[kind]} names its points itself: leave out {ignored[0]}")
            return cls.load(kind, run.runtime.choices[kind], cfg.scale.name, user_overrides)
        return None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def commands(self) -> list[str]:
        """What makes it."""
        evaluation = [f"+{self.kind}={self.number}", f"scale={self.scale['name']}", *self.overrides]
        return list(dict.fromkeys(self.spec.get("made_by", [configs.shell("evaluate", evaluation)])))

    def by_teacher(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """The points that scripts/evaluate.py can run at this scale."""
        runnable = [
            p for p in self.spec["points"] if p["teacher"] and not p.get("published") and "made_by" not in self.spec
        ]
        for teacher in dict.fromkeys(point["teacher"] for point in runnable):
            yield teacher, [point for point in runnable if point["teacher"] == teacher]

    def config(self, teacher: str) -> DictConfig:
        """What the points of a teacher differ from."""
        table_overrides = self.spec.get("evaluate", {}).get(self.scale["name"], [])
        rest = [override for override in self.overrides if not override.startswith("scale.")]
        words = [*self.scale["evaluate"], *table_overrides, *rest, *self._teacher(teacher)]
        return configs.compose_config("evaluate", [f"teacher_name={teacher}", *words])

    def _teacher(self, name: str) -> list[str]:
        path = self.scale.get("paths", {}).get(name)
        return [f"teacher={name}", *([f"teacher.path={path}"] if path else [])]

    def training(self, point: dict[str, Any], cfg: DictConfig) -> list[str]:
        """The overrides of scripts/train.py that make a point's adaptor; `cfg` is its teacher's."""
        name = point["adaptor"]
        kind = [*point["train"], f"adaptor_name={name}"] if "train" in point else [f"adaptor={name}"]
        at = _trained_at(point, cfg)
        where = [configs.override(key, value) for key, value in at.items()]
        into = [f"output={o.removeprefix('adaptors=')}" for o in self.overrides if o.startswith("adaptors=")]
        return [*self.scale["train"], *self._teacher(point["teacher"]), *kind, *where, *into]

    def untrained(self, point: dict[str, Any], cfg: DictConfig) -> bool:
        """Whether the point's adaptor has yet to be trained; `cfg` is its teacher's."""
        from clockwork.experiments.build import weightless_adaptor
        from clockwork.experiments.run_dir import adaptor_folder

        if point["adaptor"] == "none" or weightless_adaptor(cfg, point["adaptor"]) is not None:
            return False
        config = cast(DictConfig, OmegaConf.merge(cfg, _trained_at(point, cfg)))
        return not (adaptor_folder(config, point["adaptor"], cfg.adaptors) / "adaptor").is_dir()

    def note_on_missing_rows(self, rows: list[str]) -> list[str]:
        """A sentence on the rows that are not measured, and the commands that measure them."""
        points = [point for point in self.spec["points"] if point["row"] in rows]
        training = []
        for teacher in dict.fromkeys(point["teacher"] for point in points if "made_by" not in self.spec):
            of = [point for point in points if point["teacher"] == teacher]
            try:
                cfg = self.config(teacher)
            except MissingFileError:
                continue
            training += [
                configs.shell("train", self.training(point, cfg)) for point in of if self.untrained(point, cfg)
            ]
        lines = "\n".join(dict.fromkeys([*training, *self.commands]))
        if "made_by" in self.spec and "inversion_steps" not in self.spec:
            return [f"Made by:\n\n```\n{lines}\n```"]
        return [f"Not measured: {'; '.join(rows)}. What measures it:\n\n```\n{lines}\n```"] if rows else []

    def run(self, measure: Callable[[DictConfig], list[str]]) -> list[str]:
        """Measures what is missing, a teacher at a time; what cannot be run is passed over, and named at the end."""
        from clockwork.reports.index import write_index

        if "made_by" in self.spec:
            raise UserError(f"{self.name} is not made by evaluate.py: run `{'`, then `'.join(self.commands)}`")
        problems: list[str] = []
        digests: dict[str, str] = {}
        for teacher, points in self.by_teacher():
            try:
                cfg = self.config(teacher)
                if cfg.fits is not None:
                    raise UserError(f"fits={list(cfg.fits)} is not for tables and figures: pass points, or a sweep")
                ready = [point for point in points if not self.untrained(point, cfg)]
                untrained = [point for point in points if point not in ready]
                problems += [configs.shell("train", self.training(point, cfg)) for point in untrained]
                cfg.points = [{name: point[name] for name in DIFFERENCE if name in point} for point in ready]
                digests_of_points = measure(cfg) if ready else []
            except MissingFileError as error:
                problems.append(sentence(error))
                continue
            first_run = digests_of_points[: len(ready)]  # with several seeds; the index finds the others
            digests |= {point["row"]: digest for point, digest in zip(ready, first_run, strict=True)}
            write_index(Path(cfg.output), self.name, self.scale["name"], digests)
        if problems:
            raise MissingFileError(f"{self.name} is incomplete: {'; '.join(dict.fromkeys(problems))}")
        return list(digests.values())


def _trained_at(point: dict[str, Any], cfg: DictConfig) -> dict[str, Any]:
    return {name: point.get(name, cfg[name]) for name in TRAINED_AT}


def kind(point: dict[str, Any]) -> str:
    """The adaptor config behind a point's adaptor."""
    named = [word.removeprefix("adaptor=") for word in point.get("train", []) if word.startswith("adaptor=")]
    return named[0] if named else point["adaptor"]
