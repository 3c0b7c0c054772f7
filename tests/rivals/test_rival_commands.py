"""Rivals as the commands know them: configs, rows, latencies in turn, and the front of the plot."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import run
from hydra import initialize_config_dir
from hydra.utils import instantiate

from clockwork.errors import UserError
from clockwork.evaluation.rows import read_rows
from clockwork.experiments.build import make_rival
from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config, rival_config
from clockwork.metrics import latency
from clockwork.rivals.base import Rival
from clockwork.rivals.deepcache import DeepCache
from clockwork.rivals.tome import ToMe

NAMES = sorted(file.stem for file in (FOLDER / "rival").glob("*.yaml") if file.stem != "none")


def config(*words: str) -> Any:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose_config("evaluate", list(words))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_makes_a_rival(name: str) -> None:
    assert isinstance(instantiate(rival_config(name)), Rival)


def test_a_rival_is_the_users_or_the_points() -> None:
    cfg = config("rival=deepcache2", "rival.interval=4")
    assert make_rival(cfg, {}) == ("deepcache2", DeepCache(4))
    assert make_rival(cfg, {"rival": "tome2"}) == ("tome2", ToMe(0.5, 2))
    assert make_rival(cfg, {"rival": "deepcache3"}) == ("deepcache3", DeepCache(3))
    assert make_rival(config(), {}) == make_rival(cfg, {"rival": "none"}) == ("none", None)
    with pytest.raises(UserError, match="no rival 'deepcash': choose among deepcache2"):
        make_rival(cfg, {"rival": "deepcash"})


def test_the_sweep_has_fewer_steps_every_rival_and_adaptors() -> None:
    points = config("sweep=rivals").points
    assert {point.get("rival") for point in points} - {None} == set(NAMES) - {"tome"}  # which changes nothing there
    assert sum(point.get("adaptor") == "none" for point in points) >= 3
    with pytest.raises(UserError, match=r"from 0 to 0\.75"):
        config("rival=tome", "rival.ratio=2")
    with pytest.raises(UserError, match="a whole number from 1 to"):
        config("rival=deepcache2", "rival.interval=0")
    with pytest.raises(UserError, match="rival=pab takes the place of an adaptor"):
        config("points=[{rival: pab, adaptor: identity}]")


def test_rows_of_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival and the identity at its cut have equal rows but for their names."""
    points = "points=[{}, {rival: deepcache2}, {adaptor: identity, schedule: clock2, cut: layer1}]"
    few = ["steps=2", "metrics=none", "metrics.latency=false", "prompts.count=2"]
    run(monkeypatch, "evaluate", points, *few, f"output={tmp_path}")
    teacher, deepcache, identity = read_rows(tmp_path / "rows.jsonl")
    assert (teacher["adaptor"], deepcache["adaptor"], identity["adaptor"]) == ("none", "deepcache2", "identity")
    assert deepcache["metrics"] == identity["metrics"] and deepcache["tflops_full"] == identity["tflops_full"]
    assert (tmp_path / "pareto.png").is_file()


def test_latencies_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spell of ten times slower runs after the first half meets both calls, and leaves their ratio."""
    clock, order = [0.0], []
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])

    def call(name: str, seconds: float) -> Any:
        def run() -> None:
            order.append(name)
            clock[0] += seconds * (10 if len(order) > 14 else 1)

        return run

    one, two = latency.measure_in_turn([call("one", 1.0), call("two", 2.0)], torch.device("cpu"))
    assert order == ["one", "two"] * 12
    assert two.latency_ms == pytest.approx(2 * one.latency_ms) and two.latency_median_ms == 2 * one.latency_median_ms
