# make demo   the whole pipeline on small embedded data, in build/demo
# make test   ruff, mypy and the tests, on all cores: half an hour on two
# make nightly the repetitions that make test leaves out: kills, flips, studies, views of their pages
# make lint   ruff, mypy and make audit
# make audit  known vulnerabilities of the pinned packages, where a network answers
# make soak   50 random edits of params.yaml, each checked against a run from scratch; a quarter of an hour
# make faults the tests of faults at full size: 20 kills of dvc, 2,000 flips of every file; half an hour
# make fuzz   ten minutes each of hostile params.yaml, mutilated and hostile HDF5 files
# make coverage  which lines and branches the tests run, stages in their own processes included
# make bench  measure it beside what a user would run instead; an hour
# make bench-gpu  what a card has to show, in eight minutes, by the python3 and torch of its machine;
#             WHEELS=… a folder of what that Python lacks, OUT=… where gpu.json and gpu.md go
# make gpu-wheels  collect that folder, here, for the card's Python (FOR=3.12), torch and what it needs left out
# make clean  remove build/ and the virtual environment
# PYTHON=…    which Python the virtual environment is of; without it one of 3.11 to 3.13 is looked for

VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: setup demo test nightly lint audit soak faults fuzz coverage bench bench-gpu gpu-wheels clean
setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	@.ci/venv $(VENV) $(PYTHON)
	@echo "Installing the pinned packages into $(VENV): one to several minutes, most of it torch."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: setup
	$(BIN)/python data/demo/walk.py build/demo

# How many processes run tests; each takes up to 3 GB.
WORKERS ?= auto
TESTS := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations 20

test: lint
	$(TESTS) -m "not nightly"

nightly: setup
	$(TESTS) -m nightly

audit: setup
	$(BIN)/python .ci/audit.py

lint: setup audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: setup
	$(BIN)/python -m pytest -s tests/pipeline/test_soak.py -m nightly --edits 50

faults: setup
	CLIPCIFAR_TEST_DVC_KILLS=10 CLIPCIFAR_TEST_FLIPS=2000 $(BIN)/python -m pytest -s tests/faults

fuzz: setup
	$(BIN)/python -m pytest -s tests/faults/test_fuzz.py --fuzz-minutes 10

coverage: setup
	$(BIN)/coverage run -m pytest; status=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report --show-missing && exit $$status

bench: setup
	$(BIN)/python benchmarks/run.py

OUT ?= build/gpu
bench-gpu:
	python3 benchmarks/gpu.py --out $(OUT) $(if $(WHEELS),--wheels $(WHEELS)) $(if $(TOY),--toy)

FOR ?= 3.12
gpu-wheels: setup
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	    --python-version $(FOR) --constraint constraints.txt --dest $(or $(WHEELS),build/wheels) -r benchmarks/gpu.txt

clean:
	rm -rf build $(VENV)
