"""The commands by verb: `clockwork train adaptor=resnet`, or `python scripts/train.py adaptor=resnet`.

Nothing but the standard library is imported until a command runs.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        function: What runs it with its composed config, as `module:function`.
        help: What it does, in a line.
        word: The key that a first bare word is the value of.
        resumable: What a stopped run leaves for the next one.
    """

    function: str
    help: str
    word: str | None = None
    resumable: str = ""


COMMANDS = {
    "train": Command(
        "clockwork.experiments.train:train",
        "distils an adaptor, or trains a teacher",
        resumable="the checkpoints of finished epochs",
    ),
    "calibrate": Command(
        "clockwork.experiments.calibrate:calibrate",
        "fits a linear adaptor in closed form, in seconds",
        word="what",
        resumable="the fitted steps and the sums of the next one",
    ),
    "evaluate": Command(
        "clockwork.experiments.evaluate:evaluate", "measures operating points", resumable="images and rows"
    ),
    "generate": Command("clockwork.experiments.generate:generate", "generates an image without and with Clockwork"),
    "edit": Command(
        "clockwork.experiments.edit:edit", "edits an image by a text without and with Clockwork", resumable="rows"
    ),
    "export": Command(
        "clockwork.experiments.export:export", "writes full and adaptor steps as two graphs, for devices"
    ),
    "report": Command(
        "clockwork.experiments.report:report", "writes the paper's tables beside what was measured", word="what"
    ),
    "score": Command("clockwork.experiments.score:score", "FID and CLIP score of captioned images from elsewhere"),
    "tables": Command(
        "clockwork.experiments.tables:make_tables", "trains and measures whole tables", resumable="adaptors and rows"
    ),
    "evidence": Command(
        "clockwork.experiments.evidence:make_evidence",
        "measures adaptors with several seeds and fits",
        resumable="adaptors and rows",
    ),
    "bench": Command("clockwork.experiments.bench:bench", "times the parts against each other"),
    "drift": Command("clockwork.experiments.drift:measure_drift", "how much features change from step to step"),
    "perturb": Command("clockwork.experiments.perturb:perturb", "perturbs layers of the UNet", resumable="images"),
    "gpu_check": Command("clockwork.experiments.gpu_check:check_gpu", "runs all commands on a GPU with random weights"),
    "random_teacher": Command(
        "clockwork.experiments.random_teacher:make_random_teacher", "makes a pipeline folder with random weights"
    ),
    "miniature": Command(
        "clockwork.miniature.training.stage:train_stage",
        "trains the shipped models",
        resumable="finished stages and checkpoints",
    ),
}
VERBS = ("train", "calibrate", "evaluate", "generate", "edit", "export", "report")  # those of the console script's help


EXTRAS = {  # others: eval
    "train": "train",
    "calibrate": "report",
    "miniature": "all",
    "report": "report",
    "tables": "all",
    "evidence": "all",
    "gpu_check": "all",
    "bench": "all",
}
OPTIONAL = {  # what the extras install
    *("hydra", "jinja2", "lpips", "matplotlib", "omegaconf", "open_clip", "plotly", "pyarrow", "pytorch_lightning"),
    *("scipy", "timm", "torchmetrics", "wandb", "yaml"),
}


def entry(verb: str) -> Callable[[], None]:
    """Returns the function that runs a command with the overrides in `sys.argv`."""

    def run() -> None:
        command = COMMANDS[verb]
        if command.resumable and "SLURM_JOB_ID" in os.environ:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # which would end it before it has its handler
        try:
            from clockwork.experiments.command import run_command

            run_command(verb, command.function, command.word, command.resumable)
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in OPTIONAL:
                raise
            _refuse(f'{library} is not installed: pip install "clockwork-diffusion[{EXTRAS.get(verb, "eval")}]"')

    return run


def main() -> None:
    """Runs the command that the first word names, with the words after it."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("--help", "-h"):
        lines = [f"  {name:10}{COMMANDS[name].help}" for name in VERBS]
        print("usage: clockwork VERB [KEY=VALUE …]", "", *lines, "", "clockwork VERB --help prints its keys.", sep="\n")
        return
    if verb not in COMMANDS:
        _refuse(f"{verb} is not a verb: use {', '.join(VERBS)}")
    if others := other_distributions():
        names = " ".join(others)
        _refuse(
            f"{names} installs a package named clockwork, too: run `pip uninstall {names}`, then "
            "`pip install --force-reinstall --no-deps clockwork-diffusion`"
        )
    del sys.argv[1]
    entry(verb)()


def other_distributions() -> list[str]:
    """Returns the installed distributions, besides this one, that provide a package named clockwork."""
    from importlib.metadata import packages_distributions

    return sorted(set(packages_distributions().get("clockwork", ())) - {"clockwork-diffusion"})


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
