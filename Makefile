# Each target makes its own .venv on first use. Debian or Raspberry Pi OS with gcc, make and python3 (>= 3.10, with
# its venv and dev packages) needs nothing else: apt-get install gcc make python3-venv python3-dev
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := pyproject.toml setup.py $(shell find src)

.PHONY: demo test lint bench sanitize dist clean

demo: $(VENV)/demo.stamp  ## ten agents learn to read digits on this machine
	rm -rf edgefl-run
	$(VENV)/bin/edgefl demo

test: $(VENV)/dev.stamp
	$(PY) -m pytest

lint: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(VENV)/bench.stamp
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script; done

dist: $(VENV)/dev.stamp
	rm -rf dist
	$(PY) -m build

# ---- environments: one .venv, which grows by the extras that a target asks for
$(PY):
	@python3 -c 'import ensurepip, os, sys, sysconfig; sys.exit(sys.version_info < (3, 10) or \
		not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null || \
		{ echo "python3 >= 3.10 is needed, whole: apt-get install python3-venv python3-dev" >&2; exit 1; }
	python3 -m venv $(VENV)

$(VENV)/%.stamp: $(SOURCES) | $(PY)
	$(PY) -m pip install --quiet -e '.[$*]'
	touch $@

# ---- sanitize: the core without Python, under the compiler's sanitizers, once per instruction set of this processor
SANITIZE := -std=c11 -g -O1 -Wall -Wextra -Werror -Isrc -fno-sanitize-recover=all \
	-fsanitize=address,undefined,float-cast-overflow
FLAGS_avx2 := -mavx2 -mfma -msse4.2
FLAGS_avx512 := -mavx512f $(FLAGS_avx2)
CHECKS := build/sanitize
ifeq ($(shell uname -m),x86_64)
ISAS := baseline avx2 avx512
DISPATCH := -DEFL_X86_DISPATCH=1
RUNNABLE := baseline $(shell grep -qw avx2 /proc/cpuinfo && echo avx2) \
	$(shell grep -qw avx512f /proc/cpuinfo && echo avx512)
else
ISAS := baseline
RUNNABLE := baseline
endif
KERNELS := $(ISAS:%=$(CHECKS)/kernels-%.o)
CORE := $(wildcard src/*.c src/ops/*.c src/codecs/*.c) src/kernels/dispatch.c

sanitize: $(CHECKS)/main
	@set -e; for isa in $(RUNNABLE); do EDGEFL_ISA=$$isa $<; done
	@for isa in $(filter-out $(RUNNABLE),$(ISAS)); do echo "$$isa: SKIPPED, this processor does not have it"; done

$(CHECKS)/main: tests/sanitize/main.c $(KERNELS) $(SOURCES) Makefile
	$(CC) $(SANITIZE) $(DISPATCH) $< $(CORE) $(KERNELS) -lm -o $@

$(CHECKS)/kernels-%.o: $(SOURCES) Makefile
	@mkdir -p $(CHECKS)
	$(CC) $(SANITIZE) $(FLAGS_$*) -DEFL_ISA=$* -c src/kernels/kernels.c -o $@

clean:
	rm -rf $(VENV) build dist edgefl-run edgefl/_core.*.so edgefl_toolkit.egg-info
