# Each target makes its own .venv on first use. Debian or Raspberry Pi OS with gcc, make and python3 (>= 3.10, with
# its venv and dev packages) needs nothing else: apt-get install gcc make python3-venv python3-dev
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := pyproject.toml setup.py $(shell find src)
# Both of mosquitto's packages of headers, or nothing
GUARD_HEADERS := $(and $(wildcard /usr/include/mosquitto_plugin.h),$(wildcard /usr/include/mosquitto.h))
C_FILES := $(wildcard src/*.[ch] src/*/*.[ch] tests/sanitize/*.c tests/fuzz/*.c examples/mcu/*.[ch] broker/guard/*.[ch])

.PHONY: demo test test-e2e test-daemons test-core test-pages test-library lint coverage docs bench bench-gate arm-report soak soak-masked soak-kill soak-link soak-slow soak-rounds soak-churn soak-strace soak-day slow-links brokers brokers-install sanitize fuzz aarch64 mcu dist wheels deb test-aarch64 clean-package clean-pi clean-start clean-clone clean-container guard acl-matrix hostile test-zoo test-keras test-ray test-home-assistant clean

demo: $(VENV)/demo.stamp  ## ten agents learn to read digits on this machine
	rm -rf edgefl-run
	$(VENV)/bin/edgefl demo

# Five parts side by side: the core and the library compute, the others mostly wait. The targets of ALSO begin as parts end.
E2E := tests/e2e
DAEMONS := tests/daemons tests/home_assistant tests/hostile
CORE_TESTS := tests/core tests/codecs tests/onnx tests/mcu
PAGES := tests/docs
PARTS := test-e2e test-daemons test-core test-library test-pages
test: $(VENV)/dev.stamp
	@test -z '$(GUARD_HEADERS)' || $(MAKE) --no-print-directory guard
	@$(MAKE) --no-print-directory --jobs=$(words $(PARTS)) --output-sync=target $(PARTS) $(ALSO)

$(PARTS): $(VENV)/dev.stamp
test-e2e:
	$(PY) -m pytest --durations=25 $(E2E)

test-daemons:
	$(PY) -m pytest --durations=25 $(DAEMONS)

test-core:
	$(PY) -m pytest --durations=25 $(CORE_TESTS)

test-pages:
	$(PY) -m pytest --durations=25 $(PAGES)

test-library:
	$(PY) -m pytest --durations=25 tests $(patsubst %,--ignore=%,$(E2E) $(DAEMONS) $(CORE_TESTS) $(PAGES))

lint: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(C_FILES)
	$(PY) -m mypy

bench: $(VENV)/bench.stamp
	set -e; for script in $(filter-out benchmarks/gate.py benchmarks/arm_report.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(PY) $$script; done

bench-gate: $(VENV)/dev.stamp  ## steps and codecs are as fast as at the last ten commits measured on such a processor
	$(PY) benchmarks/gate.py

# apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static llvm-19
arm-report:  ## tiles and codecs cost no more cycles and instructions on the cores of Raspberry Pis than benchmarks/arm.json says
	python3 benchmarks/arm_report.py

SEEDS := 10000
SEED := 0
soak: $(VENV)/dev.stamp  ## simulated federations under faults; `make soak SEEDS=1 SEED=7` replays one
	PYTHONPATH=tests:tests/support $(PY) -m dst --seeds $(SEEDS) --seed $(SEED)

soak-masked: $(VENV)/dev.stamp  ## the same with masked rounds; then all patterns of twelve devices that drop out, with each restart
	PYTHONPATH=tests:tests/support $(PY) -m dst --masked --seeds $(SEEDS) --seed $(SEED)
	EDGEFL_EXHAUSTIVE=1 $(PY) -m pytest -q tests/coordinator/test_masked_dropouts.py

coverage: $(VENV)/dev.stamp  ## which lines of Python the tests run; pages in build/coverage
	$(PY) -m pytest --cov --cov-report=term:skip-covered --cov-report=html

docs: $(VENV)/docs.stamp  ## the site, in build/docs; a warning is an error
	$(PY) -m sphinx -q -W --keep-going -c docs . build/docs

dist: $(VENV)/dev.stamp
	rm -rf dist
	$(PY) -m build

# Wheels for Python 3.11 and 3.13 on x86-64 and aarch64, made on Debian; no program of the other architecture runs for it.
# apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
wheels: $(VENV)/wheels.stamp  ## in dist, with the manylinux tag that is true
	$(PY) package/wheels.py

# Debian packages of agent, aggregator and helper with their own libraries, for Debian 12 and 13, amd64 and arm64; lintian looks at them.
# apt-get install dpkg-dev debhelper lintian gcc-aarch64-linux-gnu libc6-dev-arm64-cross
deb: wheels  ## in dist
	$(PY) package/debs.py

# What a newcomer does, in clean Debian trees, as root. tests/support/clean_tree.py says more
clean-package clean-pi clean-start clean-clone clean-container: clean-%: $(VENV)/dev.stamp
	$(PY) tests/support/clean_tree.py $*

# The wheel in an emulated arm64 Debian; as root. apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
test-aarch64: wheels
	$(PY) tests/support/aarch64.py

# ---- guard: the plugin of mosquitto that goes to /usr/local/lib/edgefl/; it needs apt-get install mosquitto-dev libmosquitto-dev
GUARD := build/guard/guard.so
GUARD_C := $(wildcard broker/guard/*.c)
GUARD_FLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -D_FORTIFY_SOURCE=2 -fstack-protector-strong -Wall -Wextra -Werror
guard: $(GUARD)

$(GUARD): $(GUARD_C) $(wildcard broker/guard/*.h) Makefile
	@mkdir -p $(@D)
	$(CC) $(GUARD_FLAGS) -O2 -fPIC -fvisibility=hidden -shared -Wl,-z,relro,-z,now $(GUARD_C) -o $@

acl-matrix: $(VENV)/dev.stamp guard  ## docs/acl-matrix.md, from what mosquitto does
	PYTHONPATH=tests:tests/support $(PY) tests/support/acl_matrix.py docs/acl-matrix.md

test-zoo: $(VENV)/dev.stamp  ## all nets of tests/support/zoo_*.py and torch_padding.py by all exporters; some minutes
	$(PY) -m pip install -q torch==2.13.0 onnxscript
	EDGEFL_ZOO=whole EDGEFL_REQUIRE_TORCH=1 $(PY) -m pytest tests/onnx/test_zoo.py tests/onnx/test_torch_padding.py

KERAS := build/keras/bin/python
test-keras: $(VENV)/dev.stamp  ## docs/your-model.md's recipe for Keras; a venv of 1.6 GB, made once
	test -x $(KERAS) || { python3 -m venv build/keras && build/keras/bin/pip install -q tensorflow-cpu keras tf2onnx; }
	EDGEFL_KERAS_PYTHON=$(abspath $(KERAS)) $(PY) -m pytest tests/docs/test_your_model.py

RAY := build/ray/bin/python
test-ray: $(VENV)/dev.stamp  ## a simulation on two Ray workers has the bits of a local one; a venv of 0.9 GB, made once
	test -x $(RAY) || { $(PY) -m venv build/ray && build/ray/bin/pip install -q '.[demo,ray]'; }
	EDGEFL_RAY_PYTHON=$(abspath $(RAY)) $(PY) -m pytest tests/simulation/test_ray.py

HA := build/ha/bin/python
HA_BASE ?= python3.13
HA_PACKAGES := homeassistant==2025.11.3 paho-mqtt==2.1.0 'pycares<5' hassil home-assistant-intents PyTurboJPEG mutagen pymicro-vad \
	pyspeex-noise ha-ffmpeg
test-home-assistant: $(VENV)/dev.stamp  ## Home Assistant itself discovers a fleet; a venv of 1 GB, made once by HA_BASE, Python >= 3.13.2
	test -x $(HA) || { $(HA_BASE) -m venv build/ha && build/ha/bin/pip install -q --prefer-binary $(HA_PACKAGES); }
	EDGEFL_HA_PYTHON=$(abspath $(HA)) $(PY) -m pytest tests/home_assistant

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
# Pieces and parts of work as small as can be, so that there are many
SHORT := -DEFL_PIECE=2000 -DEFL_PIECE_ELEMENTS=64 -DEFL_PART=20000.0 -pthread
SANITIZE := -std=c11 -g -O1 -Wall -Wextra -Werror -Isrc -fno-sanitize-recover=all \
	-fsanitize=address,undefined,float-cast-overflow $(SHORT)
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
# Kernels that nothing runs are only linked: a sanitizer takes a minute or two for each instruction set
BEST := $(lastword $(RUNNABLE))
FOR_ISAS = $(if $(filter $*,$(1)),$(2),-std=c11 -O0 -fPIC -Isrc $(SHORT))
KERNELS := $(ISAS:%=$(CHECKS)/kernels-%.o)
CORE := $(wildcard src/*.c src/ops/*.c src/codecs/*.c src/combine/*.c) src/kernels/dispatch.c
CODECS := $(wildcard src/codecs/*.c) src/kernels/dispatch.c src/error.c src/rng.c

# One target a check and instruction set, so that `make --jobs=2 sanitize` runs two at a time
CHECKED := $(foreach check,main heads products codecs rows,$(RUNNABLE:%=sanitize-%-$(check)))
.PHONY: sanitize-threads sanitize-small sanitize-guard $(CHECKED)
sanitize: $(CHECKED) sanitize-threads sanitize-small sanitize-guard
	@for isa in $(filter-out $(RUNNABLE),$(ISAS)); do echo "$$isa: SKIPPED, this processor does not have it"; done

define CHECK_ON
$(filter sanitize-$(1)-%,$(CHECKED)): sanitize-$(1)-%: $$(CHECKS)/%
	EDGEFL_ISA=$(1) $$<
endef
$(foreach isa,$(RUNNABLE),$(eval $(call CHECK_ON,$(isa))))

sanitize-threads: $(CHECKS)/threads $(CHECKS)/first_use # whether threads race does not depend on the instruction set
	EDGEFL_ISA=$(BEST) $(CHECKS)/threads
	EDGEFL_ISA=$(BEST) $(CHECKS)/first_use

$(CHECKS)/main: tests/sanitize/main.c $(KERNELS) $(SOURCES) Makefile
	$(CC) $(SANITIZE) $(DISPATCH) $< $(CORE) $(KERNELS) -lm -o $@

$(CHECKS)/heads: tests/sanitize/heads.c $(KERNELS) $(SOURCES) Makefile
	$(CC) $(SANITIZE) -pthread $(DISPATCH) $< $(CORE) $(KERNELS) -lm -o $@

# The same nets for ThreadSanitizer
RACES := $(filter-out -fsanitize=%,$(SANITIZE)) -fsanitize=thread
$(CHECKS)/threads: tests/sanitize/main.c $(ISAS:%=$(CHECKS)/races-%.o) $(SOURCES) Makefile
	$(CC) $(RACES) $(DISPATCH) $< $(CORE) $(ISAS:%=$(CHECKS)/races-%.o) -lm -o $@

$(CHECKS)/first_use: tests/sanitize/first_use.c $(ISAS:%=$(CHECKS)/races-%.o) $(SOURCES) Makefile
	$(CC) $(RACES) $(DISPATCH) $< $(CODECS) $(ISAS:%=$(CHECKS)/races-%.o) -lm -o $@

$(CHECKS)/races-%.o: $(SOURCES) Makefile
	@mkdir -p $(CHECKS)
	$(CC) $(call FOR_ISAS,$(BEST),$(RACES)) $(FLAGS_$*) -DEFL_ISA=$* -c src/kernels/kernels.c -o $@

$(CHECKS)/products: tests/sanitize/products.c $(KERNELS) $(SOURCES) Makefile
	$(CC) $(SANITIZE) $(DISPATCH) $< src/kernels/dispatch.c src/error.c $(KERNELS) -lm -o $@

$(CHECKS)/codecs: tests/sanitize/codecs.c $(KERNELS) $(SOURCES) Makefile
	$(CC) $(SANITIZE) $(DISPATCH) $< $(CODECS) $(KERNELS) -lm -o $@

$(CHECKS)/rows: tests/sanitize/rows.c $(KERNELS) $(SOURCES) Makefile
	$(CC) $(SANITIZE) $(DISPATCH) $< src/combine/rows.c $(CODECS) $(KERNELS) -lm -o $@

$(CHECKS)/kernels-%.o: $(SOURCES) Makefile
	@mkdir -p $(CHECKS)
	$(CC) $(call FOR_ISAS,$(RUNNABLE),$(SANITIZE)) $(FLAGS_$*) -DEFL_ISA=$* -c src/kernels/kernels.c -o $@

# The small core, whose kernels are scalars on any processor
sanitize-small:
	@mkdir -p $(CHECKS)
	$(CC) $(SANITIZE) -DEFL_PROFILE_SMALL tests/sanitize/products.c src/kernels/dispatch.c src/error_small.c src/kernels/kernels.c \
		-lm -o $(CHECKS)/small-products && $(CHECKS)/small-products
	$(CC) $(SANITIZE) -DEFL_PROFILE_SMALL tests/sanitize/main.c $(CORE) src/kernels/kernels.c -lm -o $(CHECKS)/small-main && \
		$(CHECKS)/small-main

sanitize-guard:
	@mkdir -p $(CHECKS)
	@if test -n '$(GUARD_HEADERS)'; then \
		$(CC) $(GUARD_FLAGS) -U_FORTIFY_SOURCE -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
			tests/sanitize/guard.c $(GUARD_C) -o $(CHECKS)/guard && $(CHECKS)/guard $(CHECKS)/denied; \
		else echo "guard: SKIPPED, apt-get install mosquitto-dev libmosquitto-dev"; fi

# ---- fuzz: what comes from the network or lies on a disk, the core compiled with the sanitizers. Each target runs for
# FUZZ_SECONDS, and ends with its executions and coverage; `make fuzz FUZZ_TARGETS="envelope plan" FUZZ_SECONDS=3600` runs
# two of them for an hour each. What each has found stays in build/fuzz/corpus. apt-get install clang libclang-rt-dev
FUZZ_TARGETS := plan $(filter-out __%,$(basename $(notdir $(wildcard tests/fuzz/*.py))))
FUZZ_SECONDS := 60
FUZZ_SEED := 0
FUZZ := build/fuzz
FUZZ_CC := clang
FUZZ_FLAGS := -std=c11 -O1 -g1 -ffp-contract=off -fPIC -Isrc -fno-sanitize-recover=all -fsanitize=fuzzer-no-link,address,alignment,bool,bounds \
	-fsanitize=enum,float-cast-overflow,integer-divide-by-zero,return,shift,signed-integer-overflow,unreachable,vla-bound
FUZZ_CORE := $(patsubst %.c,$(FUZZ)/%.o,$(CORE)) $(ISAS:%=$(FUZZ)/kernels-%.o)
# The runtime of the address sanitizer would take libFuzzer's counters for its own if it came first
FUZZ_RUN := cd $(FUZZ)/lib && EDGEFL_ISA=$(BEST) ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:quarantine_size_mb=16 \
	LD_PRELOAD="$(abspath $(FUZZ))/libfuzzer.so \
		$(shell $(FUZZ_CC) -print-file-name=libclang_rt.asan-$(shell uname -m).so 2>/dev/null)" \
	PYTHONMALLOC=malloc PYTHONPATH=$(abspath tests) $(abspath $(PY)) -m fuzz --folder $(abspath $(FUZZ))

fuzz: $(addprefix fuzz-,$(FUZZ_TARGETS))
fuzz-%: $(FUZZ)/lib/edgefl/_core.so $(FUZZ)/libfuzzer.so
	@echo "== $*"
	$(FUZZ_RUN) $* --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

fuzz-plan: $(FUZZ)/plan $(VENV)/dev.stamp
	@echo "== plan"
	mkdir -p $(FUZZ)/corpus/plan $(FUZZ)/findings
	PYTHONPATH=tests $(PY) -m fuzz.plans $(FUZZ)/corpus/plan
	$< -max_total_time=$(FUZZ_SECONDS) -seed=$$(($(FUZZ_SEED) + 1)) -max_len=2048 -timeout=60 -rss_limit_mb=512 \
		-malloc_limit_mb=64 -print_final_stats=1 -artifact_prefix=$(FUZZ)/findings/plan- $(FUZZ)/corpus/plan

$(FUZZ)/plan: tests/fuzz/plan.c $(FUZZ_CORE)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer $^ -lm -o $@

$(FUZZ)/libfuzzer.so: Makefile
	@mkdir -p $(FUZZ)
	$(FUZZ_CC)++ -shared -Wl,--whole-archive $$($(FUZZ_CC) -print-file-name=libclang_rt.fuzzer_no_main-$$(uname -m).a) \
		-Wl,--no-whole-archive -o $@

$(FUZZ)/lib/edgefl/_core.so: $(FUZZ_CORE) $(FUZZ)/core.o $(shell find edgefl device_agent broker -name '*.py')
	mkdir -p $(FUZZ)/lib
	cp -r edgefl device_agent/edgefl_agent broker/edgefl_broker $(FUZZ)/lib
	rm -f $(@D)/_core.*.so
	$(FUZZ_CC) -shared -shared-libsan -fsanitize=address,undefined $(filter %.o,$^) -o $@

$(FUZZ)/core.o: $(wildcard src/cython/*) $(FUZZ_CORE) $(VENV)/dev.stamp
	$(PY) -m cython -3 --module-name edgefl._core src/cython/core.pyx -I src/cython -o $(FUZZ)/core.c
	$(FUZZ_CC) $(FUZZ_FLAGS) $(DISPATCH) -I$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))') \
		-c $(FUZZ)/core.c -o $@

$(FUZZ)/src/%.o: src/%.c $(SOURCES) Makefile
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) $(DISPATCH) -c $< -o $@

$(FUZZ)/kernels-%.o: $(SOURCES) Makefile
	@mkdir -p $(@D)
	$(FUZZ_CC) $(call FOR_ISAS,$(BEST),$(FUZZ_FLAGS)) $(FLAGS_$*) -DEFL_ISA=$* -c src/kernels/kernels.c -o $@

# ---- soak: real processes, mosquitto among them, that are killed for minutes; and a bad link between them
SOAK_SEED := 1
soak-kill soak-link: soak-%: $(VENV)/dev.stamp
	PYTHONPATH=tests:tests/support $(PY) tests/support/soak_faults.py $* --seed $(SOAK_SEED)

soak-day: $(VENV)/dev.stamp  ## 24 hours of a virtual fleet in which devices come and go, are slow, and hang
	PYTHONPATH=tests/support $(PY) tests/support/soak_day.py

# Faults that last (a tenth of thirty devices hung, frozen, or a hundred times slower), 20,000 rounds, an hour of churn
soak-slow soak-rounds soak-churn: soak-%: $(VENV)/dev.stamp
	PYTHONPATH=tests:tests/support:benchmarks/lib $(PY) tests/support/soak_lasting.py $*

# One federation over each MQTT broker that is installed, with a kill -9 of it in the middle; `make brokers BROKERS=nats`
# runs one. apt-get install mosquitto rabbitmq-server nats-server nodejs npm, and the target below, install all of them.
BROKERS :=
brokers: $(VENV)/dev.stamp
	PYTHONPATH=tests:tests/support $(PY) tests/support/broker_matrix.py $(BROKERS)

export EDGEFL_BROKERS ?= $(HOME)/.cache/edgefl-brokers
brokers-install:  ## aedes and amqtt, which Debian does not have
	mkdir -p $(EDGEFL_BROKERS)
	cd $(EDGEFL_BROKERS) && npm install --no-fund --no-audit aedes
	python3 -m venv $(EDGEFL_BROKERS)/amqtt && $(EDGEFL_BROKERS)/amqtt/bin/pip install --quiet amqtt

# A hostile device among five, attack by attack, on mosquitto with the guard: a quarter of an hour; needs a quiet machine
hostile: $(VENV)/dev.stamp guard
	EDGEFL_HOSTILE=all EDGEFL_REQUIRE_MOSQUITTO=1 $(PY) -m pytest -s tests/hostile

# EIO, ENOSPC and SIGKILL at each system call of saving, one after the other
soak-strace: $(VENV)/dev.stamp
	EDGEFL_STRACE=all EDGEFL_REQUIRE_STRACE=1 $(PY) -m pytest -s tests/daemons/test_strace.py tests/daemons/test_strace_helper.py

# Rounds on links of 9.6 to 256 kbit/s, in about ten minutes. As root, each device gets a network namespace
slow-links: $(VENV)/dev.stamp
	PYTHONPATH=tests/support $(PY) benchmarks/links/table.py

# ---- aarch64: the same four programs on a Pi's instruction set, on 32-bit ARM with vectors and on a processor without any,
# cross-compiled with setup.py's flags and emulated
# apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross \
#   gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user-static
CROSS := build/cross
MACHINES := aarch64 armhf riscv64
CC_aarch64 := aarch64-linux-gnu-gcc
CC_armhf := arm-linux-gnueabihf-gcc -mfpu=neon
CC_riscv64 := riscv64-linux-gnu-gcc
QEMU_aarch64 := qemu-aarch64-static
QEMU_armhf := qemu-arm-static
QEMU_riscv64 := qemu-riscv64-static
CRC_aarch64 := by-instruction # or the check of the codecs fails
FLAGS_of = $(shell python3 benchmarks/lib/setup_flags.py $(1)) -Wall -Wextra -Werror -Isrc
.PHONY: $(MACHINES:%=cross-%)
aarch64: $(MACHINES:%=cross-%)

$(MACHINES:%=cross-%): cross-%: $(foreach check,main products codecs rows,$(CROSS)/%/$(check))
	$(QEMU_$*) $(CROSS)/$*/products
	$(QEMU_$*) $(CROSS)/$*/codecs $(CRC_$*)
	$(QEMU_$*) $(CROSS)/$*/rows
	$(QEMU_$*) $(CROSS)/$*/main

define CROSS_BUILD
$(CROSS)/$(1)/kernels.o: $$(SOURCES) Makefile
	@mkdir -p $$(@D)
	$(CC_$(1)) $$(call FLAGS_of,FAST) -DEFL_ISA=baseline -c src/kernels/kernels.c -o $$@

$(CROSS)/$(1)/%.o: %.c $$(SOURCES) Makefile
	@mkdir -p $$(@D)
	$(CC_$(1)) $$(call FLAGS_of,EXACT) $$(if $$(filter tests/%,$$<),-O2) -c $$< -o $$@

$(CROSS)/$(1)/main: $$(CORE:%.c=$(CROSS)/$(1)/%.o)
$(CROSS)/$(1)/products: $$(patsubst %,$(CROSS)/$(1)/src/%.o,kernels/dispatch error)
$(CROSS)/$(1)/codecs: $$(CODECS:%.c=$(CROSS)/$(1)/%.o)
$(CROSS)/$(1)/rows: $$(CODECS:%.c=$(CROSS)/$(1)/%.o) $(CROSS)/$(1)/src/combine/rows.o
$(foreach check,main products codecs rows,$(CROSS)/$(1)/$(check)): $(CROSS)/$(1)/%: $(CROSS)/$(1)/tests/sanitize/%.o $(CROSS)/$(1)/kernels.o
	$(CC_$(1)) -static -pthread $$^ -lm -o $$@
endef
$(foreach machine,$(MACHINES),$(eval $(call CROSS_BUILD,$(machine))))

# ---- mcu: the small core in a Cortex-M33 that QEMU emulates: its results, its text and its stack
# apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
mcu: $(VENV)/dev.stamp
	$(PY) -m pytest tests/mcu
	$(MAKE) --no-print-directory -s -C examples/mcu all run PY=$(abspath $(PY))

clean:
	rm -rf $(VENV) build dist edgefl-run edgefl/_core.*.so edgefl_toolkit.egg-info
