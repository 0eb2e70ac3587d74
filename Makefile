# Each target makes its own .venv on first use; Debian or Raspberry Pi OS with python3 (>= 3.10, with venv), gcc and
# make needs nothing else.
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test lint bench sanitize dist clean

$(VENV)/.installed: pyproject.toml setup.py $(shell find src -name '*.[ch]' -o -name '*.p[yx][xd]')
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## ten agents learn to read digits on this machine
	rm -rf edgefl-run
	$(VENV)/bin/edgefl demo

test: $(VENV)/.installed
	$(PY) -m pytest

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
