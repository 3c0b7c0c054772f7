"""The paper's tables and figures, from `configs/table` and `configs/figure`, as operating points to run."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from _command import CONFIGS
from omegaconf import DictConfig, OmegaConf

KINDS = ("table", "figure")
TRAINED_AT = ("cut", "schedule", "solver", "steps")  # what an adaptor belongs to, besides its teacher


def numbers(kind: str) -> list[str]:
    return sorted((file.stem for file in (CONFIGS / kind).glob("*.yaml")), key=int)


@dataclass(frozen=True)
class Table:
    """One of them, at a scale, with every point's defaults filled in."""

    kind: str
    number: str
    scale: dict[str, Any]
    spec: dict[str, Any]
    overrides: tuple[str, ...] = ()  # the user's own

    @classmethod
    def load(cls, kind: str, number: Any, scale: str, overrides: tuple[str, ...] = ()) -> "Table":
        if str(number) not in numbers(kind):
            raise ValueError(f"no {kind} {number}: there are {', '.join(numbers(kind))}")
        from hydra import compose

        asked = [f"+{kind}={number}", f"scale={scale}"]
        given = tuple(o for o in overrides if not o.lstrip("+").startswith(("table=", "figure=", "scale=")))
        cfg = compose("evaluate", [*asked, *(o for o in given if o.startswith("scale."))])
        spec: Any = OmegaConf.to_container(cfg[kind], resolve=True)
        common = {"teacher": spec.get("teacher"), "adaptor": "none", **{k: cfg[k] for k in TRAINED_AT}}
        spec["points"] = [{**common, **point} for point in spec.get("points", [])]
        loaded: Any = OmegaConf.to_container(cfg.scale, resolve=True)
        return cls(kind, str(number), loaded, spec, given)

    @classmethod
    def asked(cls, cfg: DictConfig) -> "Table | None":
        """The one that an evaluation's config names with `+table=…` or `+figure=…`."""
        from hydra.core.hydra_config import HydraConfig

        run = HydraConfig.get()
        for kind in KINDS:
            if kind in cfg:
                return cls.load(kind, run.runtime.choices[kind], cfg.scale.name, tuple(run.overrides.task))
        return None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def to_run(self) -> list[dict[str, Any]]:
        """The points that `scripts/evaluate.py` can run at this scale."""
        if "script" in self.spec:
            return []
        return [point for point in self.spec["points"] if point["teacher"] and not point.get("published")]

    def config(self, teacher: str, config: str = "evaluate", *more: str) -> DictConfig:
        """What a point of that teacher is evaluated (or trained) with."""
        from hydra import compose

        return compose(config, [*self._overrides(teacher, config), *more])

    def _overrides(self, teacher: str, config: str) -> list[str]:
        path = self.scale.get("paths", {}).get(teacher)
        chosen = [f"teacher={teacher}", *([f"teacher.path={path}"] if path else [])]
        own = self.spec.get("evaluate", {}).get(self.scale["name"], []) if config == "evaluate" else []
        given = [o for o in self.overrides if not o.startswith("scale.")] if config == "evaluate" else []
        return [*self.scale[config], *own, *given, *chosen]

    def by_teacher(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        order = list(dict.fromkeys(point["teacher"] for point in self.to_run))
        ordered = sorted(self.to_run, key=lambda point: order.index(point["teacher"]))
        for teacher, points in groupby(ordered, key=lambda point: point["teacher"]):
            yield teacher, list(points)

    def training(self, point: dict[str, Any]) -> list[str] | None:
        """The overrides of `scripts/train.py` that make a point's adaptor; None where there is nothing to train."""
        if point["adaptor"] in ("none", "identity"):
            return None
        extra = [*point["train"], f"adaptor_name={point['adaptor']}"] if "train" in point else None
        where = [f"{k}='{point[k]}'" if "," in str(point[k]) else f"{k}={point[k]}" for k in TRAINED_AT]
        return [*self._overrides(point["teacher"], "train"), *(extra or [f"adaptor={point['adaptor']}"]), *where]

    def folder(self, cfg: DictConfig, point: dict[str, Any]) -> Path:
        """Where a point's trained adaptor lies."""
        from _compose import adaptor_folder

        here = OmegaConf.merge(cfg, {k: point[k] for k in TRAINED_AT})
        return adaptor_folder(here, point["adaptor"], cfg.adaptors) / "adaptor"

    @property
    def command(self) -> str:
        return " ".join(["python scripts/evaluate.py", f"+{self.kind}={self.number}", f"scale={self.scale['name']}"])
