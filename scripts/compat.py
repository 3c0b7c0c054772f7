"""Prints what `make test-compat` installs: `compat.py oldest` or `compat.py newest` versions of the core packages."""

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

CORE = ("torch", "diffusers", "transformers", "safetensors", "huggingface-hub", "numpy", "tqdm", "pillow")
TESTS = ("scipy", "pyyaml", "peft", "accelerate", "pytest", "DeepCache")  # what the selected tests import besides


def requirements(end: str) -> list[str]:
    """One requirement per line; the oldest pins torch, diffusers and transformers to their lower bounds."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    chosen = [line for line in dict.fromkeys(lines) if re.split("[>=<]", line)[0] in (*CORE, *TESTS)]
    if end == "newest":
        return chosen
    pinned = re.compile(r"^(torch|diffusers|transformers)>=")
    return [pinned.sub(r"\1==", line) for line in chosen]


if __name__ == "__main__":
    if sys.argv[1:] not in (["oldest"], ["newest"]):
        print("error: pass oldest or newest", file=sys.stderr)
        sys.exit(2)
    print("\n".join(requirements(sys.argv[1])))
