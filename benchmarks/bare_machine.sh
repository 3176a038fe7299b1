#!/usr/bin/env bash
# For a machine with a GPU and torch, but without network and without this package: see README.md, "On a bare machine".
#
#   benchmarks/bare_machine.sh          in the root of the repository: fills .bare_machine/, which is copied there
#   . .bare_machine/bare_machine.sh     there: goes to the code; `keep FILE` then saves the compiled kernels
set -o pipefail

pack() {
    set -eu
    rm -rf .bare_machine/wheels
    mkdir -p .bare_machine/wheels
    # Without weights: tests and benchmarks of a GPU make their own models.
    git ls-files langchain_eft unit_tests benchmarks conftest.py pyproject.toml | grep -v safetensors |
        tar -czf .bare_machine/code.tgz -T -
    cp benchmarks/bare_machine.sh .bare_machine
    local platforms=() glibc
    for glibc in 2_{39,35,34,31,28,27,24,17}; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
    ${PYTHON:-python3} -m pip download -q --no-deps --only-binary=:all: -d .bare_machine/wheels \
        --implementation cp --python-version "${PYTHON_THERE:-3.12}" "${platforms[@]}" --platform manylinux2014_x86_64 \
        -c constraints.txt -r benchmarks/bare_machine.txt
    du -sh .bare_machine
}

start() {
    local packed work=$HOME/langchain-eft
    packed=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    if [ ! -d "$work" ]; then
        mkdir -p "$work/code" "$work/kernels"
        tar -xzf "$packed/code.tgz" -C "$work/code"
        python3 -m pip install -q --no-index --no-deps --target "$work/packages" "$packed"/wheels/*.whl
        [ ! -f "$packed/kernels.tgz" ] || tar -xzf "$packed/kernels.tgz" -C "$work/kernels"
    fi
    export PYTHONPATH=$work/packages:$work/code TRITON_CACHE_DIR=$work/kernels PYTHONUNBUFFERED=1
    cd "$work/code" || return
}

# Triton takes a kernel without the files between source and machine code.
keep() {
    tar -czf "$1" --exclude='*.llir' --exclude='*.ttir' --exclude='*.ttgir' --exclude='*.ptx' --exclude='*.source' \
        -C "$TRITON_CACHE_DIR" .
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then pack; else start; fi
