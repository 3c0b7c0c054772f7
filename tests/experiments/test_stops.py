"""A stop at any moment of another library's work is a stop, also where its cleaning up then fails."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import omegaconf
import pytest
from omegaconf import OmegaConf, open_dict, read_write

from clockwork.errors import UserError
from clockwork.experiments.stops import requeue_at_signal, stopped_by_signals
from clockwork.io import slurm

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}
FOLDER = str(Path(omegaconf.__file__).parent)
MANY = 10_000  # lines, more than run


@contextmanager
def signal_at_line(number: int, signal_number: signal.Signals) -> Iterator[list[int]]:
    """Sends this process a signal before the line of omegaconf of this number, among those that run in the block."""
    lines = [0]

    def tracer(frame: Any, event: str, _: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            lines[0] += 1
            if lines[0] == number:
                sys.settrace(None)
                signal.raise_signal(signal_number)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield lines
    finally:
        sys.settrace(before)


def compose() -> None:
    """What Hydra does with configs, which are locked again at the end."""
    config = OmegaConf.create({"defaults": ["_self_"], "steps": 8})
    with read_write(config), open_dict(config):
        config.defaults.insert(0, "teacher")
        config.sizes = {"width": 16}


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handlers of a command that runs in a job of Slurm."""
    monkeypatch.setenv("SLURM_JOB_ID", "1077")
    monkeypatch.setattr(slurm, "requeue", lambda: True)
    before = {number: signal.getsignal(number) for number in STATUS}
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    requeue_at_signal()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_signal_at_any_line_of_omegaconf_stops(
    number: signal.Signals, handlers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with signal_at_line(MANY, number) as lines:
        compose()
    assert 50 < lines[0] < MANY
    became_others = 0
    for line in range(1, lines[0] + 1):
        with pytest.raises(SystemExit) as stop, stopped_by_signals("finished rows"), signal_at_line(line, number):
            compose()
        assert stop.value.code == STATUS[number], line
        assert capsys.readouterr().err.startswith("stopped")
        became_others += isinstance(stop.value.__context__, AttributeError)
    assert became_others > 0  # else this would not have tested what it is about


def test_a_mistake_and_a_status_are_not_stops() -> None:
    with pytest.raises(UserError), stopped_by_signals(""):
        raise UserError("a mistake")
    with pytest.raises(SystemExit, match="2"), stopped_by_signals(""):
        sys.exit(2)
    with pytest.raises(SystemExit, match="130"), stopped_by_signals(""):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(130)  # of a block inside, which has said so
