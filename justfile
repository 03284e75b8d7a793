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

# Run the tests, but for those that take long; options go to pytest. Installs missing browsers and nftables if this is root on Debian
[no-exit-message]
test *options: _dev _browsers
    @exec {{ bin }}/pytest -n auto --dist loadgroup -m 'not soak' "$@"

# Run the tests that need no browser on each Python of this machine; `test-pythons 3.13` on that one
[no-exit-message]
test-pythons *options: _dev
    @exec {{ bin }}/python tests/support/pythons.py "$@"

# Measure packets, and how much the server carries; `bench store` measures the database, `bench http` requests; --help tells more
[no-exit-message]
bench *options: _dev
    @case "${1:-}" in \
        store) shift; exec {{ bin }}/python tests/bench/store.py "$@";; \
        http) shift; exec {{ bin }}/python tests/bench/rest.py "$@";; \
        esac; \
        exec {{ bin }}/python -m tests.bench "$@"

# Run what takes long: the other tests, then calls over networks that lose packets; --help tells more
[no-exit-message]
soak *options: _dev _browsers
    @exec {{ bin }}/python -m tests.soak "$@"

# Check style and types, of the page only where there is npm
check: _dev && _check-page
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
    rm -rf .venv .pythons .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis build dist tests/page/node_modules
    find . -name __pycache__ -type d -prune -exec rm -rf {} +

_dev: (_install "dev" ".[dev]")

# Pin what is newest within pyproject.toml's ranges and fits every Python; then `just test`
pin: _dev
    { grep '^#' constraints.txt; {{ bin }}/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --extra dev \
        --no-header --no-annotate pyproject.toml; } > .pins
    mv constraints.txt

# A stamp newer than both tells that nothing changed since; ./just makes .venv if there is none
_install stamp what:
    @if ! [ -x {{ bin }}/python ]; then ./just --version > /dev/null; fi
    @if ! [ {{ bin }}/.{{ stamp }} -nt pyproject.toml ] || ! [ {{ bin }}/.{{ stamp }} -nt constraints.txt ]; then \
        echo "Installing into .venv (a minute, once) ..." >&2; \
        {{ bin }}/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '{{ what }}'; \
        touch {{ bin }}/.{{ stamp }}; \
    fi

# A stamp in node_modules tells that the lock has not changed since
_check-page:
    #!/bin/sh
    set -eu
    if ! command -v npm > /dev/null; then
        echo "sfu: the page was not checked, which needs more: sudo apt install npm" >&2
        exit
    fi
    tools=tests/page/node_modules
    if ! [ $tools/.stamp -nt tests/page/package-lock.json ]; then
        echo "Installing what checks the page (half a minute, once) ..." >&2
        npm ci --prefix tests/page --loglevel=error > /dev/null
        touch $tools/.stamp
    fi
    set -x
    $tools/.bin/eslint --config tests/page/eslint.config.js public
    $tools/.bin/tsc --project tests/page

# A browser is a package and the names of its programs
_browsers:
    #!/bin/sh
    missing=""
    need() {
        package=$1; shift
        for name in "$package" "$@"; do
            if command -v "$name" > /dev/null; then return; fi
        done
        missing="$missing $package"
    }
    look() {
        missing=""
        need chromium-headless-shell chromium chromium-browser google-chrome-stable
        need firefox-esr firefox
        need iproute2 ip
        need nftables nft
    }
    look
    if [ "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "Installing$missing for the tests ..." >&2
        apt-get -qq update > /dev/null
        for package in $missing; do DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$package" > /dev/null; done
        look
    fi
    if [ "$missing" ]; then echo "sfu: some tests need more: sudo apt install$missing" >&2; fi
