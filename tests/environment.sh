# SPDX-License-Identifier: MIT
# Sourced by tests/run.sh and examples/quickstart.sh: a virtual environment with everything in it, and OpenMM-Flow built into it.
#
# OPENMMFLOW_VENV   the environment, made if it does not exist   (default: .venv in the repository)
# OPENMMFLOW_BUILD  the build folder, reused from run to run     (default: build in the repository)
# PYTHON            the Python to make the environment with      (default: python3)

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${OPENMMFLOW_VENV:-$repository/.venv}
build=${OPENMMFLOW_BUILD:-$repository/build}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# The compiler, headers and venv module come from Debian; everything else from PyPI.
install_debian_packages() {
    local python=${PYTHON:-python3} packages=()
    command -v g++ >/dev/null || packages+=(g++)
    [ -e /usr/include/nlohmann/json.hpp ] || packages+=(nlohmann-json3-dev)
    [ -e /usr/include/gtest/gtest.h ] || packages+=(libgtest-dev)
    command -v "$python" >/dev/null || packages+=(python3 python3-dev python3-venv)
    if command -v "$python" >/dev/null; then
        "$python" -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
        "$python" -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2>/dev/null ||
            packages+=(python3-dev)
    fi
    [ ${#packages[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "These Debian packages are missing; install them and start again:" >&2
        echo "    sudo apt-get install ${packages[*]}" >&2
        return 1
    fi
    say "Installing Debian packages: ${packages[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${packages[@]}" </dev/null >/dev/null ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${packages[@]}" </dev/null >/dev/null; }
}

# OpenCL on the CPU (PoCL), for the tests of device code. They are skipped without it.
install_opencl() {
    local packages=()
    [ -e /usr/include/CL/cl.h ] || packages+=(opencl-headers)
    [ -e /usr/lib/x86_64-linux-gnu/libOpenCL.so ] || packages+=(ocl-icd-opencl-dev)
    ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 || packages+=(pocl-opencl-icd)
    [ ${#packages[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "Tests on OpenCL will be skipped. To run them: sudo apt-get install ${packages[*]}" >&2
        return
    fi
    say "Installing Debian packages: ${packages[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${packages[@]}" </dev/null >/dev/null ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${packages[@]}" </dev/null >/dev/null; } ||
        echo "Tests on OpenCL will be skipped: ${packages[*]} could not be installed." >&2
}

install_python_packages() {
    local requirements=$repository/tests/requirements.txt cuda=$repository/tests/requirements-cuda.txt
    [ -x "$venv/bin/python" ] || { say "Making the environment $venv"; "${PYTHON:-python3}" -m venv "$venv"; }
    cat "$requirements" "$cuda" | cmp -s - "$venv/openmmflow-requirements.txt" && return
    say "Installing Python packages (torch is large: some minutes)"
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off -q -r "$requirements"
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off -q --no-deps -r "$cuda"
    cat "$requirements" "$cuda" >"$venv/openmmflow-requirements.txt"
}

# build_package ON|OFF [OPTION...]: build the libraries once, with or without the C++ tests, and install the Python package from
# that build. Options are pip's.
build_package() {
    local log=$build/build.log launcher=()
    mkdir -p "$build"
    # In CMake's cache, so that a later call of ninja by hand rebuilds nothing.
    command -v ccache >/dev/null && launcher=(--config-settings cmake.define.CMAKE_CXX_COMPILER_LAUNCHER=ccache)
    say "Building OpenMM-Flow (the first time takes several minutes; log: $log)"
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check -v --no-build-isolation --no-deps --force-reinstall \
        "${launcher[@]}" --config-settings build-dir="$build" --config-settings cmake.define.OPENMMFLOW_BUILD_TESTS="$1" "${@:2}" "$repository/python" </dev/null 2>&1 |
        tee "$log" | { grep --line-buffered -oE '^ *\[[0-9]+/[0-9]+\].*|Successfully .*' || true; }; then
        echo "The build failed:" >&2
        grep -E -A12 'error|FAILED|CMake Error' "$log" | head -60 >&2
        return 1
    fi
}

set_up() {
    install_debian_packages
    [ "$1" = OFF ] || install_opencl
    install_python_packages
    export PATH="$venv/bin:$PATH" OPENMM_DEFAULT_PLATFORM=CPU
    # Ninja would start more compilers than there are cores; each may use a gigabyte.
    export CMAKE_GENERATOR=Ninja CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    command -v ccache >/dev/null && export CCACHE_SLOPPINESS=pch_defines,time_macros
    build_package "$1"
}
