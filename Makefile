# Everything a checkout needs, with nothing but make and python3.11 on the machine. `make help` lists the targets.

PYTHON ?= python3.11
# cpu or gpu: which builds of onnxruntime and faiss are installed. They exclude each other.
EXTRAS ?= cpu

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(EXTRAS)
# With what develops and tests beside what serves and trains.
DEV_STAMP := $(STAMP)-dev
# With Playwright and axe-core besides, 170 MB, which change no version of another package: for browser tests alone.
BROWSER_STAMP := $(STAMP)-browser
CHROMIUM := $(or $(MODISTE_CHROMIUM),/usr/bin/chromium)
# vLLM's CPU build, which needs other versions than ours of what both use; 2 GB, for tests alone.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
# RecBole, which needs other versions, too; 1 GB with PyTorch's CPU build.
BASELINES := .venv-baselines
BASELINES_STAMP := $(BASELINES)/.installed
SHOP := var/data/shop
# Sizes of the sample shop, as `modiste shop --help` lists them.
SHOP_OPTIONS ?=
# What `make loadtest` asks, and how: options of loadtests/locustfile.py.
LOADTEST_HOST ?= http://127.0.0.1:$(or $(MODISTE_PORT),8000)
LOADTEST ?=
# What `make baselines` works on: a data set and the run that was trained on it, minutes for each model, which models (all),
# seed, the window as `modiste evaluate` takes it (say WINDOW="--windows 4 --window-days 7"), and the directory of a
# Longformer for Recformer to begin with (from scratch).
DATA ?= $(SHOP)
RUN ?= var/runs/$(notdir $(abspath $(DATA)))
BUDGET ?= 10
MODELS ?=
SEED ?= 0
WINDOW ?=
CHECKPOINT ?=
# What `make studies` conducts, on DATA, from RUN's stages, by the configuration CONFIG, into STUDIES_OUT.
STUDIES ?= losses mixup cold-start ablations zero-shot low-resource
CONFIG ?= default
STUDIES_OUT ?= var/studies/$(notdir $(abspath $(DATA)))
STUDY ?=
STORE := $(or $(MODISTE_STORE),model_store/bundles)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help serve preflight baselines studies test test-slow test-faults test-vllm test-baselines test-browser chromium check lock audit loadtest bench clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

# A kill between two steps, or inside one, costs at most that step: each leaves its whole result or none.
serve: preflight $(STORE)/CURRENT ## sample shop, training, evaluation, export, embedded Redis, service on http://127.0.0.1:8000
	@$(BIN)/modiste serve --seed-data $(SHOP)

# Settings, port and folders are looked at before minutes are spent on training.
preflight: $(STAMP)
	@$(BIN)/modiste serve --check

$(SHOP)/data_set.json: | $(STAMP)
	@$(BIN)/modiste shop $(SHOP) $(SHOP_OPTIONS)

# A store that somebody named and that has a live bundle is served as it is; the default one follows data and config.
ifeq ($(and $(MODISTE_STORE),$(wildcard $(STORE)/CURRENT)),)
$(STORE)/CURRENT: $(SHOP)/data_set.json offline/configs/default.toml | $(STAMP)
	@$(BIN)/modiste train --data $(SHOP)
	@$(BIN)/modiste evaluate --data $(SHOP) --report var/reports/shop
	@$(BIN)/modiste export --data $(SHOP) --store $(STORE)
endif

# Each model's results appear whole; after Ctrl-C those that are not done go on. Recformer is ours and needs no RecBole.
COMMA := ,
CHOSEN := $(subst $(COMMA), ,$(MODELS))
TEXT_MODELS := $(if $(CHOSEN),$(filter Recformer%,$(CHOSEN)),Recformer Recformer+query)
RECBOLE_MODELS := $(if $(CHOSEN),$(filter-out Recformer%,$(CHOSEN)),GRU4Rec SASRec BERT4Rec NextItNet CORE)
baselines: $(STAMP) $(if $(RECBOLE_MODELS),$(BASELINES_STAMP)) ## others' sequence models for a trained run: make baselines DATA=… RUN=… BUDGET=minutes MODELS=…
	@$(BIN)/python -m offline.baselines.asking --data $(DATA) --run $(RUN) $(WINDOW)
ifneq ($(RECBOLE_MODELS),)
	@$(BASELINES)/bin/python -m offline.baselines.training $(RUN)/baselines --budget $(BUDGET) --models "$(RECBOLE_MODELS)" --seed $(SEED)
endif
ifneq ($(TEXT_MODELS),)
	@$(BIN)/python -m offline.baselines.text_training $(RUN)/baselines --budget $(BUDGET) --models "$(TEXT_MODELS)" --seed $(SEED) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))
endif

# What is trained is not trained again; after Ctrl-C it goes on.
studies: $(STAMP) ## the papers' studies, losses to low resource: make studies DATA=… RUN=… CONFIG=… STUDIES="losses mixup"
	@for name in $(STUDIES); do \
	  $(BIN)/modiste study $$name --data $(DATA) --run $(RUN) --config $(CONFIG) --out $(STUDIES_OUT) --seed $(SEED) $(STUDY) || exit 1; \
	done

# Files of tests, two at a time: most of them keep one core busy.
PYTEST := $(BIN)/pytest -q -n 2 --dist loadfile

test: $(DEV_STAMP) ## the whole default test suite
	@$(PYTEST)

test-slow: $(DEV_STAMP) ## what takes minutes: a fresh environment, the whole quick start, trainings at full size, all faults
	@$(PYTEST) --no-loadscope-reorder -m "(slow or faults) and not vllm and not baselines"

test-faults: $(DEV_STAMP) ## many writers at once; workers and Redis killed under load; a catalogue that changes all the time
	@$(PYTEST) -m faults tests/faults

test-vllm: $(DEV_STAMP) $(VLLM_STAMP) ## the text generators against a real vLLM on the CPU, in an environment of its own
	@$(BIN)/pytest -q -m vllm tests/vllm tests/service/generation

test-baselines: $(DEV_STAMP) $(BASELINES_STAMP) ## all of RecBole's models on a shop with a known answer, in an environment of its own
	@$(BIN)/pytest -q -m baselines tests/baselines

test-browser: chromium $(BROWSER_STAMP) ## the page in a real Chromium, on desktop and phone, over a sample shop; pictures in var/screenshots
	@$(BIN)/pytest -q -m browser tests/browser

# Playwright's own browsers are not needed: the system's is taken, which is kept up to date there.
chromium:
	@test -x "$(CHROMIUM)" || { echo "make: there is no Chromium at $(CHROMIUM): apt-get install chromium, or name another with MODISTE_CHROMIUM=…" >&2; exit 1; }

check: $(DEV_STAMP) ## format, lint, strict types, walls between the rooms
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

lock: $(DEV_STAMP) ## list every package anew, with version and hashes; UPGRADE=1 takes the newest
	@$(BIN)/python -m requirements.lock $(if $(UPGRADE),--upgrade)

audit: $(DEV_STAMP) ## ask for known vulnerabilities of every package, where that can be asked
	@$(BIN)/python -m requirements.audit

loadtest: $(STAMP) ## journeys to a running service, at random times; fails where a limit does not hold
	@mkdir -p var
	@$(BIN)/locust -f loadtests/locustfile.py --headless --only-summary --host $(LOADTEST_HOST) --html var/loadtest.html --out var/loadtest.json $(LOADTEST)

bench: $(STAMP) ## measure speed and memory; writes var/bench.json
	@$(BIN)/modiste bench --out var/bench.json

clean: ## remove the environment and all that was generated, but for var/ and bundles
	rm -rf $(VENV) $(VLLM) $(BASELINES) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The environment, from pip alone, out of lists that name every package with its version and hashes: nothing else is
# looked for, and nothing else is taken. Modules are compiled when they are first imported: to compile all of them takes as
# long as to install them. (vLLM's are compiled at once, since its servers import most of them, and have a time limit.)
unexport PYTHONDONTWRITEBYTECODE
QUIETLY := -qq --disable-pip-version-check --no-input --no-deps
requirements = --require-hashes $(patsubst %,-r requirements/%.txt,$(1))
SERVING := service $(EXTRAS) offline loadtests
torch = $(if $(filter gpu,$(EXTRAS)),,$(1)/bin/python -m pip install $(QUIETLY) --no-compile $(call requirements,torch-cpu) 2>/dev/null || )\
	$(1)/bin/python -m pip install $(QUIETLY) --no-compile $(call requirements,torch)
define install
	@$(PYTHON) -c 'import sys; assert sys.version_info[:2] >= (3, 11)' || { echo "make: $(PYTHON) is missing or older than 3.11; name another with PYTHON=…" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing packages into $(VENV) …"
	@$(BIN)/python -m pip install $(QUIETLY) --no-compile $(call requirements,$(1))
	@$(call torch,$(VENV))
	@$(BIN)/python -m pip install $(QUIETLY) --no-compile --no-build-isolation -e .
endef

$(STAMP): pyproject.toml $(SERVING:%=requirements/%.txt) requirements/torch.txt requirements/torch-cpu.txt
	$(call install,$(SERVING))
	@touch $@

$(DEV_STAMP): pyproject.toml $(SERVING:%=requirements/%.txt) requirements/torch.txt requirements/torch-cpu.txt requirements/tracing.txt requirements/dev.txt
	$(call install,$(SERVING) tracing dev)
	@touch $(STAMP) $@

$(BROWSER_STAMP): $(DEV_STAMP) requirements/browser.txt
	@echo "Installing Playwright into $(VENV) …"
	@$(BIN)/python -m pip install $(QUIETLY) --no-compile $(call requirements,browser)
	@touch $@

$(VLLM_STAMP): requirements/vllm.txt requirements/torch-cpu.txt
	@test -x $(VLLM)/bin/pip || $(PYTHON) -m venv --clear $(VLLM)
	@echo "Installing vLLM into $(VLLM) …"
	@$(VLLM)/bin/python -m pip install $(QUIETLY) $(call requirements,vllm torch-cpu)
	@touch $@

$(BASELINES_STAMP): requirements/baselines.txt requirements/torch.txt requirements/torch-cpu.txt
	@test -x $(BASELINES)/bin/pip || $(PYTHON) -m venv --clear $(BASELINES)
	@echo "Installing RecBole into $(BASELINES) …"
	@$(BASELINES)/bin/python -m pip install $(QUIETLY) --no-compile $(call requirements,baselines)
	@$(call torch,$(BASELINES))
	@touch $@
