# make demo | make test | make check | make experiment | make bench-convert | make bench-load | make bench-scale | make gpu-check. All set up what they need in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# processes that run tests, by default as many as there are cores and memory for: tests/conftest.py
WORKERS ?= auto
STORE ?= $(VENV)/demo.zarr

.PHONY: demo test test-all tests test-interop test-matrix test-train test-train-lerobot test-train-openpi check style types compiled install bench-convert \
        bench-convert-scale bench-load bench-small-memory bench-remote bench-augment bench-scale bench-adapters bench-plan \
        experiment test-experiments profile-convert gpu-check soak fuzz change-under-training kill-nightly image image-check dist docs clean
.DELETE_ON_ERROR:
# Python keeps what it compiled, whatever the environment says: else each process that a test starts compiles torch anew, for 3 seconds
unexport PYTHONDONTWRITEBYTECODE
ifneq (,$(filter check test test-all,$(MAKECMDGOALS)))  # style, types, and tests, two at a time
MAKEFLAGS += --jobs=2
endif

demo: $(VENV)/to-use  ## set up, then convert, verify and show the embedded sample, load it beside h5py, and train one epoch on it
	$(INSTALL)
	$(BIN)/python examples/demo.py --store $(STORE) --report $(STORE:.zarr=.html)

test: TESTS := -m "not slow"
test: style tests types  ## set up, then style, types, tests with doctests, and the wheel

test-all: TESTS := --full
test-all: style tests types  ## the same with the tests marked slow, and all that each test can try; CI runs this

tests: compiled
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal --durations=10 $(TESTS) tests benchmarks

check: style types  ## style, types, and which room imports which

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: install
	$(BIN)/mypy -p robozarr
	$(BIN)/mypy tests benchmarks sample examples experiments

compiled: install  ## the loader's reader, once, before processes of tests do it each
	-$(BIN)/python -m robozarr.loader.warm

# torch first and by its version: whatever asks for it otherwise brings gigabytes of CUDA along. Nothing is compiled to bytecode
# here: most of these files are never imported, and Python compiles those that are
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile
$(VENV)/to-use: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit(f"robozarr needs Python 3.11 or later; found {v}. Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch (200 MB without CUDA, 3 GB with it) …"
	@$(PIP) -c constraints.txt torch==2.13.0 hatchling editables
	@echo "installing robozarr's other packages …"
	@$(PIP) -c constraints.txt --no-build-isolation '.[convert,train,view]'
	touch $@

$(VENV)/dependencies: $(VENV)/to-use
	@echo "installing what the tests and benchmarks need …"
	@$(PIP) -c constraints.txt --no-build-isolation '.[dev]'
	touch $@

# installed, not editable: the tests see what a user gets
INSTALL = $(PIP) --no-deps --force-reinstall --no-build-isolation .
install: $(VENV)/dependencies
	$(INSTALL)

# An environment of its own. robomimic asks for torchvision, which no torch of these constraints goes with, and for a simulator's
# renderer; its SequenceDataset needs neither, and its training loop's tests put an empty module in torchvision's place. So it comes
# without its dependencies but for the few that it imports.
INTEROP := $(VENV)-interop
$(INTEROP)/dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install -q --upgrade pip
	$(INTEROP)/bin/python -m pip install -q -c constraints.txt torch==2.13.0
	$(INTEROP)/bin/python -m pip install -q -c constraints.txt '.[convert,train]' hypothesis pytest
	$(INTEROP)/bin/python -m pip install -q tqdm termcolor imageio matplotlib psutil six
	$(INTEROP)/bin/python -m pip install -q --no-deps robomimic==0.3.0
	touch $@

test-interop: $(INTEROP)/dependencies  ## sample by sample against the real robomimic
	$(INTEROP)/bin/python -m pip install -q --no-deps --force-reinstall .
	$(INTEROP)/bin/python -m pytest -q tests/interop

# An environment of its own: what training repositories ask for. numpy is 1.26, for imgaug (RDT), jax and TensorFlow of that time
# (openpi, OpenVLA) know no 2.0. robomimic, LIBERO and torchvision come without dependencies, for the reasons above, and robomimic
# a second time, as LIBERO asks for it; torchvision's Python is imported beside a torch that its compiled part does not go with
# (tests/train/site). Repositories that are on no registry are re-created in the tests; ROBOZARR_UPSTREAM=FOLDER names checkouts of
# them, by which their own code is run. Diffusion policy's own data sets read by Zarr 2, which lies in a folder beside.
TRAIN := $(VENV)-train
TRAIN_PIP := $(TRAIN)/bin/python -m pip install -q -c tests/train/constraints.txt
$(TRAIN)/dependencies: pyproject.toml tests/train/constraints.txt
	$(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/python -m pip install -q --upgrade pip
	$(TRAIN_PIP) torch==2.13.0
	$(TRAIN_PIP) '.[convert,train]' hypothesis pytest
	$(TRAIN_PIP) accelerate diffusers imgaug sentencepiece tensorboard timm transformers
	$(TRAIN_PIP) cloudpickle dill easydict einops future hydra-core imageio matplotlib pandas psutil six termcolor thop tqdm wandb
	$(TRAIN_PIP) --no-deps libero robomimic torchvision
	$(TRAIN)/bin/python -m pip install -q --no-deps --target $(TRAIN)/robomimic-0.2.0 robomimic==0.2.0
	$(TRAIN)/bin/python -m pip install -q --no-deps --target $(TRAIN)/zarr2 asciitree==1.0.0 deprecated==1.3.1 fasteners==0.20 \
	    numcodecs==0.15.1 wrapt==2.5.2 zarr==2.18.7
	touch $@

test-train: $(TRAIN)/dependencies test-train-lerobot  ## each recipe's lines and commands, in training loops of RDT, robomimic, LIBERO, OpenVLA, openpi, LeRobot, diffusion policy
	$(TRAIN)/bin/python -m pip install -q --no-deps --force-reinstall .
	$(TRAIN)/bin/python -m pytest -q -rs tests/train/diffusion_policy tests/train/libero tests/train/openpi tests/train/openvla tests/train/rdt tests/train/robomimic

# An environment of its own: what openpi pins, of which only jax, flax and what is around them matter to its loader and statistics.
OPENPI := $(VENV)-openpi
OPENPI_PIP := $(OPENPI)/bin/python -m pip install -q torch==2.13.0 numpy==1.26.4
$(OPENPI)/dependencies: pyproject.toml
	$(PYTHON) -m venv $(OPENPI)
	$(OPENPI)/bin/python -m pip install -q --upgrade pip
	$(OPENPI_PIP)
	$(OPENPI_PIP) '.[convert,train]' hypothesis pytest
	$(OPENPI_PIP) jax==0.5.3 flax==0.10.2 orbax-checkpoint==0.11.13 chex==0.1.90 ml_dtypes==0.4.1 tensorstore==0.1.74 \
	    jaxtyping==0.2.36 beartype==0.19.0 ml_collections==1.0.0 transformers==4.53.2 \
	    augmax dm-tree einops equinox 'fsspec[gcs]' numpydantic polars rich sentencepiece tqdm-loggable treescope tyro
	touch $@

test-train-openpi: $(OPENPI)/dependencies  ## openpi's own loader and statistics over a store, where ROBOZARR_UPSTREAM names a checkout
	$(OPENPI)/bin/python -m pip install -q --no-deps --force-reinstall .
	$(OPENPI)/bin/python -m pytest -q -rs tests/train/openpi

# An environment of its own. LeRobot's pins exclude this torch (0.4.4 asks for one below 2.11, 0.6 for one below 2.12), so that it and
# torchvision come without their dependencies but for those that they import; tests/train/lerobot/conftest.py says what is put in the
# place of something. LeRobot 0.6, where there is such a Python: make test-train-lerobot LEROBOT_VERSION=0.6.0 PYTHON=python3.12
LEROBOT_VERSION ?= 0.4.4
LEROBOT := $(VENV)-lerobot-$(LEROBOT_VERSION)
LEROBOT_PIP := $(LEROBOT)/bin/python -m pip install -q
$(LEROBOT)/dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LEROBOT)
	$(LEROBOT_PIP) --upgrade pip
	$(LEROBOT_PIP) -c constraints.txt torch==2.13.0
	$(LEROBOT_PIP) -c constraints.txt '.[convert,lerobot,train]' hypothesis pytest
	$(LEROBOT_PIP) -c constraints.txt accelerate pyserial termcolor
	$(LEROBOT_PIP) av==15.1.0 datasets==5.2.0 deepdiff==9.1.0 diffusers==0.42.1 draccus==0.10.0 einops==0.8.2 gymnasium==1.4.0
	$(LEROBOT_PIP) imageio==2.38.1 jsonlines==4.0.0 opencv-python-headless==5.0.0.93
	$(LEROBOT_PIP) --no-deps lerobot==$(LEROBOT_VERSION) torchvision==0.28.0
	touch $@

test-train-lerobot: $(LEROBOT)/dependencies  ## items, metadata and training of the real LeRobot beside a store
	$(LEROBOT_PIP) --no-deps --force-reinstall .
	$(LEROBOT)/bin/python -m pytest -q -s -W ignore tests/train/lerobot

# Versions that others bring: numpy 1.26 for openpi, RDT and OpenVLA, the lowest that this package allows, the newest of everything.
# Each has an environment of its own, without constraints; of pyarrow 26 pip does not know that it wants numpy 2. Where there is no such Python, it says so.
MATRIX_np126 := python3.11 numpy==1.26.4 zarr==3.1.5 pyarrow==25.0.1
MATRIX_np126-py312 := python3.12 numpy==1.26.4 zarr==3.1.5 pyarrow==25.0.1
MATRIX_lowest := python3.11 numpy==1.26.0 zarr==3.1.3 pyarrow==25.0.1
MATRIX_lowest-py313 := python3.13 numpy==2.1.0 zarr==3.1.3
MATRIX_newest := python3.11
MATRIX := np126 np126-py312 lowest lowest-py313 newest
MATRIX_TESTS ?= tests/schemas tests/store tests/convert/planning tests/convert/writing tests/loader/windows tests/loader/adapters
test-matrix: $(MATRIX:%=test-matrix-%)  ## the tests of tables, stores, windows and adapters with numpy 1.26 and zarr 3.1.3 up to the newest

test-matrix-%:
	@if ! $(firstword $(MATRIX_$*)) -c ''; then echo "$*: there is no $(firstword $(MATRIX_$*)) here; not tested"; exit 0; fi; set -e; \
	at=$(VENV)-matrix-$*; test -d $$at || $(firstword $(MATRIX_$*)) -m venv $$at; pip="$$at/bin/python -m pip install -q"; \
	$$pip --upgrade pip; $$pip torch==2.13.0 $(wordlist 2,9,$(MATRIX_$*)); \
	$$pip torch==2.13.0 $(wordlist 2,9,$(MATRIX_$*)) '.[convert,lerobot,s3,train,view]' flask flask-cors hypothesis 'moto[s3]' pytest tensorstore; \
	$$pip --no-deps --force-reinstall .; $$at/bin/python -m pytest -q -W default -m "not slow" $(MATRIX_TESTS)

# An environment of its own: no test but those of the experiment needs a simulator. robosuite asks for packages that read a
# keyboard and show pictures, which need a compiler and a screen; it comes without its dependencies but for those that it imports.
EXPERIMENTS := $(VENV)-experiments
$(EXPERIMENTS)/dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(EXPERIMENTS)
	$(EXPERIMENTS)/bin/python -m pip install -q --upgrade pip
	$(EXPERIMENTS)/bin/python -m pip install -q -c constraints.txt torch==2.13.0
	$(EXPERIMENTS)/bin/python -m pip install -q -c constraints.txt '.[convert,train]' hypothesis matplotlib pytest
	$(EXPERIMENTS)/bin/python -m pip install -q -c constraints.txt mujoco scipy termcolor
	$(EXPERIMENTS)/bin/python -m pip install -q --no-deps robosuite==1.4.1
	touch $@

experiment: $(EXPERIMENTS)/dependencies  ## what dropping the tail costs, in a simulator, into docs/experiments; ARGS=--quick: 3 minutes
	$(EXPERIMENTS)/bin/python -m pip install -q --no-deps --force-reinstall .
	PYTHONPATH=experiments $(EXPERIMENTS)/bin/python -m tail $(ARGS)

test-experiments: $(EXPERIMENTS)/dependencies  ## the tests of the experiment that need its simulator, and the quick run
	$(EXPERIMENTS)/bin/python -m pip install -q --no-deps --force-reinstall .
	$(EXPERIMENTS)/bin/python -m pytest -q tests/experiments/simulator

bench-adapters: install  ## windows/s of each adapter beside WindowLoader on the same window
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/load/bench_adapters.py $(ARGS)

bench-convert: install  ## MB/s of 3 GB of source: cp, h5py, zarr-python, zarrs, robozarr by profile and workers, the bare loop
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/convert/bench_convert.py --size-mb 3000 $(ARGS)

bench-convert-scale: install  ## MB/s, CPU and peak memory from 0.3 to 10 GB of source, and of one demo of 3.2 GB
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/convert/bench_convert_scale.py $(ARGS)

# each takes the options of its script: make fuzz CHUNKS="--runs 50000" STORES="--seed 3"
fuzz: install  ## damaged HDF5 files, hostile stores, chunks for two decoders: a clear error, or exactly what was written
	$(BIN)/python tests/support/fuzz_hdf5.py $(ARGS)
	$(BIN)/python tests/support/fuzz_stores.py $(STORES)
	$(BIN)/python tests/support/fuzz_chunks.py $(CHUNKS)

change-under-training: install  ## a store of a gigabyte is replaced, appended to, cut, removed while it is trained from: no wrong window
	$(BIN)/python tests/support/change_under_training.py $(ARGS)

kill-nightly: install  ## a thousand kills of converters at work, three hundred sequences of commands that are killed: the same bytes
	$(BIN)/python tests/support/kill_nightly.py $(ARGS)
	SEQUENCES=300 $(BIN)/pytest -q -n $(WORKERS) --full tests/convert/test_sequences.py

profile-convert: install  ## where a conversion's CPU time goes
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/convert/profile_convert.py $(ARGS)

bench-plan: install  ## planning, tasks, scheduler and journal of 100 GB to 10 TB
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/convert/bench_plan.py $(ARGS)

soak: install  ## ten minutes of epochs, early ends, forks and interrupts: memory, files, threads flat, every batch right
	$(BIN)/python tests/support/soak.py $(ARGS)

bench-load: install  ## CPU-µs a window: HDF5 readers, zarr-python, TensorStore, DataLoader, WindowLoader, the limit
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/load/bench_load.py $(ARGS)

bench-small-memory: install  ## a store twice the memory that there is (a control group): windows/s, MB from the disk, by profile
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/load/bench_small_memory.py $(ARGS)

bench-remote: install  ## a bucket 20 ms away: one request at a time, 1 to 16 batches in flight, cache_dir beside the local store
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/remote/bench_remote.py $(ARGS)

bench-augment: install  ## samples/s and CPU-µs: pictures augmented a batch at a time, a sample at a time in workers; choosing windows
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/load/bench_augment.py $(ARGS)

bench-scale: install  ## opening, memory and time a window from 10^3 to 10^7 windows
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/load/bench_scale.py $(ARGS)

gpu-check: install  ## on a machine with a CUDA device: the tests marked gpu, and the way to the device against its limits
	$(BIN)/python -c 'import torch; torch.cuda.is_available() or exit(f"torch {torch.__version__} sees no CUDA device: install a build with CUDA, look at nvidia-smi")'
	$(BIN)/pytest -q -m gpu tests/test_gpu.py
	PYTHONPATH=benchmarks:benchmarks/load $(BIN)/python benchmarks/gpu/bench_gpu.py $(ARGS)

# an environment of its own: nothing else needs mkdocs. griffe reads the sources, so robozarr itself needs no extra there
DOCS := $(VENV)-docs
$(DOCS)/dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt '.[docs]'
	touch $@

docs: $(DOCS)/dependencies  ## the docs site, strict, into build/site
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(DOCS)/bin/mkdocs build  # not --quiet: then no warning fails it

dist: install  ## the wheel and the sdist, as they are published
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

# DOCKER=podman works too
DOCKER ?= docker
IMAGE ?= robozarr
SOURCE ?=
image:  ## the container image; needs Docker or podman, and nothing else
	$(DOCKER) build --tag $(IMAGE) --build-arg SOURCE="$(SOURCE)" --build-arg REVISION="$$(git rev-parse HEAD)" \
	    --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"$$/\1/p' robozarr/version.py)" .

image-check:  ## the image, run as its users run it: users, mounts, SIGTERM, resuming
	DOCKER="$(DOCKER)" tests/support/container.sh $(IMAGE)

clean:
	rm -rf $(VENV) $(VENV)-interop $(VENV)-train $(VENV)-openpi $(VENV)-lerobot-* $(VENV)-matrix-* $(VENV)-docs $(VENV)-experiments build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
