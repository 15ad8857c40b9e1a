# The two commands of the README are `make demo` and `make test`; each installs
# what the machine lacks, builds, and runs. There is one cargo profile, since
# RocksDB takes most of a first build.

PREFIX ?= /usr/local
CARGO ?= cargo

.PHONY: help demo test long recipes check bench build static boot deb install bootstrap posix endure fuzz crash

help:
	@echo 'make demo      build, and show with real packages what Cairn does'
	@echo 'make test      build, and run all tests'
	@echo 'make long      run the tests that take too long for each change'
	@echo 'make recipes   build real software of each build system, and run it'
	@echo 'make check     check format, lints and documentation'
	@echo 'make bench     measure, with the peers beside'
	@echo 'make fuzz      give each parser changed bytes for FUZZ_SECONDS=60'
	@echo 'make crash     cut the power CRASH_POINTS=1000 times, and have each change and read fail, as root'
	@echo 'make posix     run the suites of others on mounts, as root'
	@echo 'make endure    kill and stop mounts, and collect beside readers, for long, as root'
	@echo 'make build     build target/release/cairn'
	@echo 'make static    build target/static/cairn, one file without libraries, and try it'
	@echo 'make boot      boot an emulated machine from a root of Cairn, and work in it'
	@echo 'make deb       make a Debian package of it in target/'
	@echo 'make install   install below $(PREFIX) (PREFIX=, DESTDIR=)'

demo: build
	@tools/demo

test: build
	@tools/bootstrap tests
	$(CARGO) test --release --workspace

# More than 400 packages, some in two versions, of which 490 MB are downloaded; and a minute
# of work in a live root that is switched all the time.
long: build
	@tools/bootstrap tests
	$(CARGO) test --release --workspace --test upgrade --test day -- --ignored

# 400 MB of packages to build with, and the sources.
recipes: build
	@tools/bootstrap tests
	$(CARGO) test --release --workspace --test software --test emul32 -- \
		--ignored --test-threads 1

check: bootstrap
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --workspace --no-deps

bench: build
	@tools/bootstrap bench
	$(CARGO) bench --workspace --bench '*'

posix: build
	@tools/posix

# What docs/reliability.md asks of mounts: processes that are killed or stopped ENDURE_KILLS and
# ENDURE_ROUNDS times, commands that are killed ENDURE_COMMANDS times each, readers beside
# collections for ENDURE_SECONDS, ENDURE_PAIRS pairs of changes on each kind of overlay (there are
# fewer), DECAY_FLIPS flipped bytes, MODEL_SEEDS sequences of MODEL_STEPS commands, and all files of
# a machine, those in ENDURE_ROOT, compared by other programs. An hour and a half; a release takes
# 1800 seconds.
endure: export ENDURE_KILLS ?= 500
endure: export ENDURE_ROUNDS ?= 100
endure: export ENDURE_COMMANDS ?= 50
endure: export ENDURE_SECONDS ?= 300
endure: export ENDURE_PAIRS ?= 10000
endure: export ENDURE_ROOT ?= /usr
endure: export DECAY_FLIPS ?= 10000
endure: export MODEL_SEEDS ?= 20
endure: export MODEL_STEPS ?= 50
endure: build
	@tools/bootstrap tests
	$(CARGO) test --release --workspace --test takeover --test robust --test kill --test collect \
		--test exchange --test union --test decay --test sequences --test changes \
		--test workspace --test gc -- --include-ignored --nocapture --test-threads=1

# Guided by coverage, for which all is compiled once more, but for RocksDB: target/fuzz.
# FUZZ_PARSERS names some of tests/src/fuzz/mod.rs.
fuzz: build
	@tools/fuzz

# Power cuts on ext4, XFS and Btrfs, filesystems that go away, each change of each command
# that fails or is its last, and each read that fails. CRASH_SEED repeats the choices of a run.
crash: build
	@tools/bootstrap crash
	$(CARGO) test --release --workspace --test crash --test faults --test adverse -- --ignored --nocapture --test-threads 1

build: bootstrap
	$(CARGO) build --release --workspace

# One file that needs no library, for recovery: target/static/cairn. RocksDB is not
# compiled again for it.
static: build
	@tools/bootstrap static
	@tools/static
	$(CARGO) test --release --workspace --test static -- --ignored

# An emulated machine: some minutes.
boot: static
	@tools/bootstrap boot
	$(CARGO) test --release --workspace --test machine -- --ignored --test-threads 1

# A Debian package of Cairn, in target/.
deb: build
	@tools/deb target

bootstrap:
	@tools/bootstrap

# Installs what `make build` has built, so that root needs no Rust.
install:
	install -D -m 755 target/release/cairn '$(DESTDIR)$(PREFIX)/bin/cairn'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1' \
		'$(DESTDIR)$(PREFIX)/share/bash-completion/completions' \
		'$(DESTDIR)$(PREFIX)/share/zsh/site-functions' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	install -d '$(DESTDIR)$(PREFIX)/sbin'
	ln -sf ../bin/cairn '$(DESTDIR)$(PREFIX)/sbin/mount.fuse.cairn'
	target/release/cairn --quiet man '$(DESTDIR)$(PREFIX)/share/man/man1'
	target/release/cairn completions bash \
		>'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cairn'
	target/release/cairn completions zsh \
		>'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cairn'
	target/release/cairn completions fish \
		>'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/cairn.fish'
