# Every target runs as root on a Debian machine and needs nothing beforehand:
# testbed/install.sh fetches what is missing from Debian's packages.
.PHONY: test lint packages demo bench chaos load compose-test manifests-test

CARGO ?= cargo
nextest := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

# The whole gate: the cheapest checks first, then the tests, then the short chaos.
test: packages lint
ifeq ($(nextest),yes)
	$(CARGO) test --quiet --workspace --locked --doc
	$(CARGO) nextest run --workspace --locked
else
	$(CARGO) test --workspace --locked --no-fail-fast -- --test-threads=2
endif
	$(MAKE) chaos DURATION=180

# Format, clippy and documentation, with warnings denied.
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

# The servers and peers that the tests start.
packages:
	@testbed/install.sh

# The main job, from nothing to the labels of a photo.
demo: packages
	$(CARGO) build --release --locked --package abax-cli
	examples/demo.sh target/release/abax

# A start beside docker, podman, runc, crun and the kernel's floor, in one run;
# then what the service takes, alone and as a site.
bench: packages
	$(CARGO) build --release --locked --package abax-cli
	$(CARGO) build --release --locked --package abax-runtime --example launch
	$(CARGO) build --release --locked --package abax-api --example load
	gcc -O2 -o target/release/floor testbed/bench/floor.c
	testbed/bench/bench.py target/release/abax target/release/examples/launch target/release/floor
	python3 -B testbed/bench/load.py target/release/abax target/release/examples/load

# The stack of docker-compose.yml for real: quickstart, kills, restore.
compose-test: packages
	$(CARGO) build --release --locked --package abax-cli
	timeout 1200 testbed/compose/test.sh target/release/abax

# deploy/ against the schemas of the Kubernetes API, without a cluster.
manifests-test: packages
	python3 -m venv target/manifests
	target/manifests/bin/pip --quiet install --requirement testbed/manifests/requirements.txt
	target/manifests/bin/python testbed/manifests/check.py .

# Ten minutes of a hundred messages a second of every kind, with halts, deletes and
# a restart: all that was accepted ends, and nothing is left. SHAPE=cluster for
# PostgreSQL and RabbitMQ; LOAD_SECONDS and RATE for less or more.
LOAD_SECONDS ?= 600
RATE ?= 100
SHAPE ?= embedded
load: packages
	$(CARGO) build --release --locked --package abax-cli
	gcc -O2 -Wall -Wextra -Werror -static -o target/work testbed/load/work.c
	python3 -B testbed/load/mixed.py target/release/abax target/work --duration $(LOAD_SECONDS) --rate $(RATE) --shape $(SHAPE)

# A site of several hosts under load, while everything fails at random. SEED
# replays a schedule, DURATION is in seconds; `make test` takes 180. BEFORE is an
# earlier program, which some of the processes run, as during an upgrade.
DURATION ?= 1800
chaos: packages
	$(CARGO) build --locked --package abax-cli
	gcc -O2 -Wall -Wextra -Werror -static -o target/effect testbed/chaos/effect.c
	python3 -B testbed/chaos/test_checks.py --quiet
	python3 -B testbed/chaos/test_stops.py target/debug/abax target/effect
	python3 -B testbed/chaos/chaos.py target/debug/abax target/effect --duration $(DURATION) $(if $(SEED),--seed $(SEED)) $(if $(BEFORE),--before $(BEFORE))
