# `make demo` and `make test` install what they need into .venv the first time.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: install demo eval test test-full test-compat bench lint miniature clean

.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clockwork needs Python 3.11 or newer: say make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --progress-bar off -e '.[dev]'
	touch $@

install: .venv/.installed

# The main job on the miniature, in minutes on two cores: adaptors at 8, 6 and 4 steps, then the table and the pictures.
demo: install
	@for steps in 8 6 4; do \
	  $(RUN) scripts/train.py +experiment=demo adaptor=resnet schedule=clock2 steps=$$steps || exit; \
	done
	@$(RUN) scripts/evaluate.py sweep=demo prompts.count=500 adaptors=outputs/demo/adaptors output=outputs/demo

# The sweep over schedules and step counts for one teacher: rows, report, wandb. TEACHER=sd15 for another.
TEACHER ?= miniature
eval: install
	@for steps in 8 6 4; do $(RUN) scripts/train.py teacher=$(TEACHER) adaptor=resnet schedule=clock2 steps=$$steps || exit; done
	@$(RUN) scripts/evaluate.py sweep=default teacher=$(TEACHER) output=outputs/eval/$(TEACHER) logger=wandb

test: install
	$(RUN) -m pytest

# The chain at real size, with random weights: minutes, and 10 GB of memory.
test-full: install
	$(RUN) -m pytest -m full

# What the parts cost against each other.
bench: install
	$(RUN) scripts/bench.py

# The contract (chain equals unet.forward) and a pipeline with the hook, with the oldest diffusers that pyproject allows
# and with the newest; each in a folder of its own that is thrown away.
test-compat: install
	@oldest=$$(sed -n 's/.*"diffusers>=\(.*\)".*/\1/p' pyproject.toml); \
	for version in "==$$oldest" ""; do \
	  folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(BIN)/pip install --quiet --no-deps --target "$$folder" "diffusers$$version" && \
	  PYTHONPATH="$$folder:." $(RUN) -c 'import diffusers; print("diffusers", diffusers.__version__)' && \
	  PYTHONPATH="$$folder:." $(RUN) -m pytest tests/test_split.py \
	    "tests/test_pipeline.py::test_pipeline[StableDiffusionPipeline]" \
	    "tests/test_pipeline.py::test_pipeline[StableDiffusionXLPipeline]" || exit; \
	  rm -rf "$$folder"; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains the shipped miniature from nothing: hours on two cores, resumable.
miniature: install
	$(RUN) scripts/miniature.py

clean:
	rm -rf .venv outputs
