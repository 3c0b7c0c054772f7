# `make demo` and `make test` install what they need into .venv the first time.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: install constraints demo eval evidence rivals calibration-tables flops tables editing analysis notebooks test test-slow test-full test-compat faults bench lint docs dist dist-check gpu-check miniature distilled lcm chain clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clockwork needs Python 3.11 or newer: run make PYTHON=<python>")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/.installed

# Writes constraints.txt again, from an environment whose tests pass. CUDA's own packages follow torch.
constraints: install
	@head -1 constraints.txt > constraints.new
	@$(BIN)/pip freeze --exclude-editable | grep -viE '^(nvidia|cuda|triton)|@' >> constraints.new
	@mv constraints.new constraints.txt

# The main job on the miniature, in minutes on two cores: at 8, 6 and 4 steps a linear adaptor, calibrated in seconds, and a
# distilled ResNet; then the table and the images.
demo: install
	@for steps in 8 6 4; do \
	  $(RUN) scripts/calibrate.py schedule=clock2 steps=$$steps output=outputs/demo/adaptors || exit; \
	done
	@for steps in 8 6 4; do \
	  $(RUN) scripts/train.py +experiment=demo adaptor=resnet schedule=clock2 steps=$$steps || exit; \
	done
	@$(RUN) scripts/evaluate.py sweep=demo prompts.count=500 adaptors=outputs/demo/adaptors output=outputs/demo

# The sweep over schedules and step counts for one teacher: rows, report, wandb. TEACHER=sd15 for another.
TEACHER ?= miniature
eval: install
	@for steps in 8 6 4; do $(RUN) scripts/train.py teacher=$(TEACHER) adaptor=resnet schedule=clock2 steps=$$steps || exit; done
	@$(RUN) scripts/evaluate.py sweep=default teacher=$(TEACHER) output=outputs/eval/$(TEACHER) logger=wandb

# Every adaptor and other method at many operating points, with several noise seeds and fits, then fewer of them for the
# other miniatures: outputs/evidence/evidence.md. Hours; run again, it goes on where it stopped.
evidence: install
	@$(RUN) scripts/evidence.py
	@$(RUN) scripts/evidence.py sweep=other_teachers teacher_name=miniature_sd
	@$(MAKE) distilled
	@$(RUN) scripts/evidence.py sweep=other_teachers teacher_name=miniature_distilled

# The tables of docs/calibration.md: what captions, terms, ranks and joint maps give, and where calibration fails.
calibration-tables: install
	@$(RUN) -m clockwork.miniature.calibration_tables
	@$(RUN) -m clockwork.miniature.pipeline_tables

# Other methods (DeepCache, ToMe, diffusers' caches, forecasts, fewer steps) and adaptors on the same prompts, seeds and
# solver: a table, a plot with the front, and outputs/rivals/report.html. RIVAL_COUNT captions a row.
RIVAL_COUNT ?= 2000
rivals: install
	@for steps in 8 6 4; do \
	  $(RUN) scripts/calibrate.py schedule=clock2 steps=$$steps output=outputs/rivals/adaptors || exit; \
	done
	@$(RUN) scripts/evaluate.py sweep=rivals prompts.count=$(RIVAL_COUNT) adaptors=outputs/rivals/adaptors output=outputs/rivals

# Every FLOPs and parameter figure of the paper beside ours, from the architectures alone: outputs/reports/flops.csv.
flops: install
	@$(RUN) scripts/report.py flops

# The paper's tables on the miniature, end to end: adaptors (in a folder of their own, so that none has been trained longer
# than another), rows, report; run again, it goes on where it stopped. COUNT captions a row, EPOCHS of each adaptor's
# training; make tables TABLES="1 3" FIGURES= for some of them.
TABLES ?= 1 2 3 4 5 6
FIGURES ?= 4 7
COUNT ?= 500
EPOCHS ?= 5
comma := ,
space := $(subst ,, )
list = '$(1)=[$(subst $(space),$(comma),$(strip $(2)))]'
tables: install
	@$(RUN) scripts/tables.py $(call list,tables,$(TABLES)) $(call list,figures,$(FIGURES)) adaptors=outputs/tables/adaptors \
	  'train=["epochs=$(EPOCHS)"]' 'evaluate=["prompts.count=$(COUNT)"]'

# What the idea rests on: every layer of the miniature disturbed from some step on, and how features drift.
analysis: install
	@for layers in up down bottleneck conv_in; do $(RUN) scripts/perturb.py layers=$$layers || exit; done
	@$(RUN) scripts/drift.py

# Every notebook from top to bottom; what they show lies in outputs/notebooks.
notebooks: install
	@mkdir -p outputs/notebooks
	@for book in $(notdir $(wildcard notebooks/*.ipynb)); do \
	  $(BIN)/jupyter-execute --timeout=600 --output=../outputs/notebooks/$$book notebooks/$$book || exit; \
	done

# JOBS processes, a file of tests each.
JOBS ?= 2
test: install
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -n $(JOBS) --dist loadfile

# What cannot be made fast: CI runs it after `make test`.
test-slow: install
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -n $(JOBS) --dist loadfile -m slow

# Kills at many random moments; prints how many ended as an undisturbed run does. Minutes, one process at a time.
faults: install
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -s -m "faults or slow" tests/faults

# The chain at real size, with random weights: minutes, and 10 GB of memory.
test-full: install
	$(RUN) -m pytest -m full

# The figures of docs/editing.md: pictures edited with and without a clock on the miniature.
editing: install
	@for clock in clock2 clock4; do \
	  $(RUN) scripts/calibrate.py teacher=miniature_sd schedule=$$clock solver=ddim steps=20 guidance=2 \
	    output=outputs/editing/adaptors || exit; \
	done
	@$(RUN) scripts/train.py +experiment=demo teacher=miniature_sd adaptor=resnet schedule=clock2 solver=ddim steps=20 \
	  guidance=2 prompts_per_epoch=64 output=outputs/editing/adaptors
	@$(RUN) scripts/edit.py +benchmark=scenes adaptors=outputs/editing/adaptors output=outputs/editing -m
	@cp outputs/editing/figure6.png docs/editing.png
	@cp outputs/editing/images-scenes-100.png docs/editing-pictures.png

# Everything on one GPU with random weights at real size, in minutes: outputs/gpu/report.md.
gpu-check: install
	@$(RUN) scripts/gpu_check.py

# What the parts cost against each other, with a UNet of random weights that is large enough for its layers to count:
# outputs/bench/timings.json. BENCH="compare=<an older file>" prints what has become slower. About 6 minutes on two cores.
bench: install
	@$(RUN) scripts/bench.py "channels=[128,256,384,512]" teacher.resolution=64 batch=1 steps=4 rounds=11 cut=stage1 "exported=[onnx]" $(BENCH)

# The contract (chain equals unet.forward), FLOPs and pipelines on the oldest and the newest torch and diffusers that
# pyproject allows, each in an environment of its own that is removed afterwards. Core packages only: torchvision, which
# the newest torch may have to wait for, is not one.
COMPAT = tests/unet/test_split.py tests/unet/test_unet_kinds.py tests/unet/test_video_unets.py tests/flops/test_flops.py "tests/pipeline/test_pipeline.py::test_pipeline[StableDiffusionPipeline]" \
  "tests/pipeline/test_pipeline.py::test_pipeline[StableDiffusionXLPipeline]"
COMPAT_SHAPES = not (bk_sdm_tiny or guided or sd21)
test-compat:
	@$(MAKE) --jobs=2 --output-sync compat-oldest compat-newest

compat-%:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(PYTHON) -m venv "$$folder" && \
	  "$$folder/bin/python" scripts/compat.py $* > "$$folder/requirements.txt" && \
	  "$$folder/bin/pip" install --quiet --progress-bar off -r "$$folder/requirements.txt" && \
	  "$$folder/bin/python" -c 'import torch, diffusers; print("torch", torch.__version__, "diffusers", diffusers.__version__)' && \
	  OMP_NUM_THREADS=1 PYTHONPATH=. "$$folder/bin/python" -m pytest -p no:cacheprovider -k "$(COMPAT_SHAPES)" $(COMPAT)

# The wheel and the source distribution: dist/.
dist: install
	rm -rf dist
	$(RUN) -m build --quiet --outdir dist .

# The wheel in an empty environment: Clockwork on the miniature with the core dependencies alone, then a command with all
# extras. Minutes: torch is installed again.
dist-check: dist
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && wheel=$$(ls dist/*.whl) && \
	  $(PYTHON) -m venv "$$folder/env" && \
	  "$$folder/env/bin/pip" install --quiet --progress-bar off -c constraints.txt "$$wheel" && \
	  cp tests/helpers/dist_smoke.py "$$folder" && cd "$$folder" && env/bin/python dist_smoke.py && cd "$(CURDIR)" && \
	  "$$folder/env/bin/pip" install --quiet --progress-bar off -c constraints.txt "$$wheel[all]" && \
	  cd "$$folder" && env/bin/clockwork --help && env/bin/clockwork train --cfg job > train.yaml && grep -q '^steps: 8' train.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation with its API reference, from the docstrings: outputs/site. Warnings are errors.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Trains the miniature from nothing: hours on two cores, resumable.
miniature: install
	@for stage in autoencoder clip draft miniature miniature_sd; do $(RUN) scripts/miniature.py stage=$$stage || exit; done
	@$(MAKE) distilled SD=outputs/miniature/miniature_sd MADE=outputs/miniature

# The paper's models at small scale, each made from the one before: Efficient, told the guidance scale, few steps.
SD ?= miniature_sd
MADE ?= outputs/teachers
TUNE = scripts/train.py +experiment=chain teacher=miniature_sd teachers=$(MADE) output=$(MADE)/runs
distilled: install
	@$(RUN) $(TUNE) objective=recover teacher.path=$(SD) name=miniature_efficient
	@$(RUN) $(TUNE) objective=guidance teacher.path=$(MADE)/miniature_efficient name=miniature_guided
	@$(RUN) $(TUNE) objective=progressive teacher.path=$(MADE)/miniature_guided start=16 end=8 name=miniature_distilled

# The miniature as a latent consistency model, for 2 to 8 steps: a quarter of an hour on one core.
lcm: install
	@$(RUN) scripts/train.py +experiment=lcm teacher=miniature name=miniature_lcm teachers=$(MADE) output=$(MADE)/runs

# Then Clockwork on top, and a row of each: outputs/chain.
CHAIN := scripts/evaluate.py prompts.count=500 output=outputs/chain
chain: distilled
	@$(RUN) scripts/train.py +experiment=demo teacher=miniature_distilled output=outputs/adaptors
	@for teacher in $(SD) miniature_efficient miniature_guided; do \
	  $(RUN) $(CHAIN) sweep=chain teacher=miniature_sd teacher.path=$$teacher || exit; \
	done
	@$(RUN) $(CHAIN) sweep=chain_distilled teacher=miniature_distilled

clean:
	rm -rf .venv outputs
