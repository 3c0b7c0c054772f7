"""Options that cannot act are refused, not ignored."""

from collections.abc import Iterator

import pytest
from helpers.commands import ROOT
from helpers.configs import base, changed, refusal
from hydra import initialize_config_dir


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        yield


IGNORED = {
    "evaluate schedule=[9]": "schedule=9 has no effect with adaptor=none: pass adaptor=identity or another",
    "evaluate schedule=9": "schedule=9 has no effect",
    "evaluate schedule=[2,4]": "schedule=2,4 has no effect",
    "evaluate schedule=clock4": "schedule=clock4 has no effect",
    "evaluate schedule=always": "schedule=always has no effect",
    "evaluate rival=deepcache2 schedule=clock4": "schedule=clock4 has no effect",
    "evaluate points=[{schedule:clock2}]": "schedule=clock2 has no effect",
    "evaluate points=[{},{schedule:clock2}]": "schedule=clock2 has no effect",
    "evaluate points=[{adaptor:none,schedule:[4]}]": "schedule=4 has no effect",
    "evaluate adaptor=identity points=[{adaptor:none,schedule:clock2}]": "schedule=clock2 has no effect",
    "evaluate points=[{rival:tome2,schedule:clock2}]": "schedule=clock2 has no effect",
    "train objective=recover schedule=9": "schedule=9 has no effect with objective=recover",
    "train objective=guidance schedule=[2,4]": "schedule=2,4 has no effect with objective=guidance",
    "train objective=consistency schedule=[2,4]": "schedule=2,4 has no effect with objective=consistency",
    "train objective=consistency clocked=0.2 adaptor=none": "needs an adaptor and a schedule",
    "train objective=consistency clocked=0.2 schedule=full": "needs an adaptor and a schedule",
    "edit solver=lcm": "solver=lcm is not allowed",
    "evaluate guidance=-1": "guidance=-1 is not allowed",
    "evaluate points=[{guidance:-1}]": "points[0].guidance=-1 is not allowed",
    "edit guidance=-1": "guidance=-1 is not allowed",
    "generate guidance=-0.5": "guidance=-0.5 is not allowed",
    "calibrate guidance=-1": "guidance=-1 is not allowed",
    "evaluate prompts.split=foo": "prompts.split=foo is not allowed",
    "calibrate prompts.split=foo": "prompts.split=foo is not allowed",
    "train images.split=foo": "images.split=foo is not allowed",
    "train epochs=-1": "epochs=-1 is not allowed",
}


@pytest.mark.parametrize("command", IGNORED)
def test_what_cannot_act_is_refused(command: str) -> None:
    message = refusal(command, changed)
    assert IGNORED[command] in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("sweep", ["defalt", "demos", "rival"])
def test_a_misspelled_sweep_is_refused(sweep: str) -> None:
    assert f"sweep={sweep} is not allowed" in refusal(f"evaluate sweep={sweep}")


@pytest.mark.parametrize(
    "command",
    [
        "evaluate",
        "evaluate schedule=full",
        "evaluate schedule=clock2",
        "evaluate adaptor=identity schedule=clock4",
        "evaluate points=[{},{adaptor:none,schedule:full},{adaptor:identity,schedule:clock4}]",
        "evaluate rival=deepcache2 schedule=full",
        "train objective=progressive schedule=full",
        "train objective=recover steps=1",
        "evaluate adaptor=identity schedule=clock4 points=[{},{schedule:clock2}]",
    ],
)
def test_what_acts_is_allowed(command: str) -> None:
    assert changed(command)


@pytest.mark.parametrize("sweep", [file.stem for file in sorted((ROOT / "configs" / "sweep").glob("*.yaml"))])
def test_shipped_sweeps_are_allowed(sweep: str) -> None:
    assert base("evaluate", f"sweep={sweep}").points
