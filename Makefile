# make demo   install, then the main job end to end on a synthetic scene
# make test   install, then lint, types, import rules, tests and doctests
# make fuzz   the property tests on examples drawn anew
# make bench  all benchmarks, or one with NAME=...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHES := $(if $(NAME),$(NAME),$(sort $(filter-out _%,$(basename $(notdir $(wildcard tests/benchmarks/*.py))))))

.PHONY: demo test lint types imports pytest fuzz bench install clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e ".[dev]"
	@touch $@

demo: install
	$(BIN)/geoseg demo --out runs/demo --overwrite

test: lint types imports pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

pytest: install
	$(BIN)/python -m pytest --doctest-modules -n 2 --dist worksteal

fuzz: install
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile fuzz -n 2 --dist worksteal

bench: install
	@for name in $(BENCHES); do $(BIN)/python tests/benchmarks/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) .bench runs build dist
