set shell := ["sh", "-eu", "-c"]
set positional-arguments

bin := ".venv/bin"

# List the recipes
_list:
    @{{ just_executable() }} --list --unsorted

# Serve on http://localhost:8080; options, such as --self-signed, go to `sfu serve`
[no-exit-message]
run *options: setup
    @exec {{ bin }}/sfu serve "$@"

# Run every test; options go to pytest. Installs Chromium if it is missing and this is root on Debian
[no-exit-message]
test *options: _dev _chromium
    @exec {{ bin }}/pytest -n auto --dist loadgroup "$@"

# Measure what a packet costs and how much the server carries; `bench store` measures the database; --help tells more
[no-exit-message]
bench *options: _dev
    @if [ "${1:-}" = store ]; then shift; exec {{ bin }}/python tests/bench/store.py "$@"; fi; \
        exec {{ bin }}/python -m tests.bench "$@"

# Check style and types
check: _dev
    {{ bin }}/ruff check
    {{ bin }}/ruff format --check
    {{ bin }}/mypy

# Bring the sources into the project's format
fmt: _dev
    {{ bin }}/ruff check --fix
    {{ bin }}/ruff format

# Install what running needs into .venv
setup: (_install "run" ".")

# Remove everything that recipes and tools made
clean:
    rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis build dist
    find . -name __pycache__ -type d -prune -exec rm -rf {} +

_dev: (_install "dev" ".[dev]")

# A stamp newer than pyproject.toml tells that nothing changed since; ./just makes .venv if there is none
_install stamp what:
    @if ! [ -x {{ bin }}/python ]; then ./just --version > /dev/null; fi
    @if ! [ {{ bin }}/.{{ stamp }} -nt pyproject.toml ]; then \
        echo "Installing into .venv (a minute, once) ..." >&2; \
        {{ bin }}/pip install --quiet --disable-pip-version-check --editable '{{ what }}'; \
        touch {{ bin }}/.{{ stamp }}; \
    fi

_chromium:
    #!/bin/sh
    found() {
        for name in chromium chromium-browser google-chrome-stable; do
            if command -v "$name" > /dev/null; then return 0; fi
        done
        return 1
    }
    if ! found && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "Installing Chromium for the browser tests ..." >&2
        (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium) > /dev/null
    fi
    found || echo "sfu: the browser tests need Chromium: sudo apt install chromium" >&2
