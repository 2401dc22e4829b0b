#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The tests for GPUs and their benchmarks, on a machine with a GPU, nvcc, cmake and torch, and without network.
#
#     bash tests/run_gpu.sh fetch WHEELS              on a machine with network: fill the folder WHEELS
#     bash tests/run_gpu.sh build WHEELS              each of these is one call of at most OPENMMFLOW_LIMIT seconds (570):
#     bash tests/run_gpu.sh test WHEELS [RESULTS]     a call that is cut off goes on where it was
#     bash tests/run_gpu.sh benchmark WHEELS [RESULTS]
#
# RESULTS (default: WORK/results) gets JSON: what each test program said with a summary, tests.json, and gpu.json. Settings:
#
# PYTHON               a Python that has torch                        (default: python3)
# OPENMMFLOW_WORK      environment and build folder                   (default: build-gpu in the repository)
# OPENMMFLOW_PLATFORM  CUDA, or another that stands in for it         (default: CUDA)
# OPENMMFLOW_TARGET    of fetch: the Python version of that machine   (default: 3.12)
set -euo pipefail

step=${1:-} wheels=$(realpath -m "${2:-/}") limit=${OPENMMFLOW_LIMIT:-570}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${OPENMMFLOW_WORK:-$repository/build-gpu} platform=${OPENMMFLOW_PLATFORM:-CUDA}
results=$(realpath -m "${3:-$work/results}")

if [ $# -lt 2 ] || ! [[ $step =~ ^(fetch|build|test|benchmark)$ ]]; then
    sed -n '3,19s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi

# Wheels without torch and what comes with it, and what Debian has as sources.
fetch() {
    local names='^(openmm|swig|scikit-build-core|ninja|pytest|scipy|tqdm|PyYAML|OpenMM-CUDA-13)=='
    mkdir -p "$wheels/prefix"
    cat "$repository"/tests/requirements*.txt | grep -E "$names" >"$wheels/requirements.txt"
    printf '%s\n' iniconfig pluggy pygments packaging pathspec >>"$wheels/requirements.txt"
    local platforms=()
    for glibc in 34 28 27 17 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    "${PYTHON:-python3}" -m pip download --disable-pip-version-check --progress-bar off -q --no-deps --only-binary=:all: \
        --python-version "${OPENMMFLOW_TARGET:-3.12}" --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 \
        --platform manylinux2010_x86_64 --platform manylinux1_x86_64 -d "$wheels" -r "$wheels/requirements.txt"
    local debian; debian=$(mktemp -d)
    (cd "$debian" && apt-get download -qq googletest nlohmann-json3-dev)
    for package in "$debian"/*.deb; do dpkg-deb -x "$package" "$debian"; done
    mkdir -p "$wheels/prefix/include"
    cp -r "$debian/usr/include/nlohmann" "$wheels/prefix/include/"
    cp -r "$debian/usr/src/googletest" "$wheels/"
    rm -r "$debian"
    du -sh "$wheels"
}

# find_packages PYTHON: the folder that holds its torch.
find_packages() {
    "$1" -c 'import importlib.util as u, os; print(os.path.dirname(os.path.dirname(u.find_spec("torch").origin)))'
}

build() {
    local outer; outer=$(find_packages "${PYTHON:-python3}")
    [ -x "$work/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$work/venv"
    echo "$outer" >"$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
    "$work/venv/bin/python" -m pip install --disable-pip-version-check -q --no-index --no-deps "$wheels"/*.whl
    if [ ! -e "$work/prefix/.done" ]; then
        cmake -S "$wheels/googletest" -B "$work/googletest" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$work/prefix" \
            -DCMAKE_POSITION_INDEPENDENT_CODE=ON >/dev/null
        cmake --build "$work/googletest" --target install -j "$(nproc)" >/dev/null
        cp -r "$wheels/prefix/include" "$work/prefix/" && touch "$work/prefix/.done"
    fi
    export CMAKE_PREFIX_PATH=$work/prefix OPENMMFLOW_VENV=$work/venv OPENMMFLOW_BUILD=$work/build
    source "$repository/tests/environment.sh"
    export PATH=$venv/bin:$PATH CMAKE_GENERATOR=Ninja CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    build_package ON
}

# OpenMM's CUDA Platform looks for CUDA's libraries beside itself: here they are torch's, or the toolkit's.
find_libraries() {
    local folder
    for folder in "$(find_packages "$work/venv/bin/python")"/nvidia/*/lib /usr/local/cuda/lib64; do
        if [ -d "$folder" ]; then LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}; fi
    done
    export LD_LIBRARY_PATH OPENMM_DEFAULT_PLATFORM=$platform
}

# run_program NAME FILTER: a GoogleTest program of the build.
run_program() {
    "$work/build/tests/$1" --gtest_filter="$2" --gtest_output="json:$results/$1.json" --gtest_brief=1 || status=1
}

run_tests() {
    local plugins status=0
    find_libraries
    plugins=$("$work/venv/bin/python" -c 'import openmm.version as v; print(v.openmm_library_path)')/plugins
    export OPENMM_PLUGIN_DIR=$plugins OMP_NUM_THREADS=1
    run_program test_flows '*Device*:CudaFlows*'
    run_program test_energies "*ContextPotentialOn*${platform}*"
    run_program test_api "*${platform}*-Slow*"
    (cd "$work" && venv/bin/python -m pytest -q -p no:cacheprovider --junitxml="$results/pytest.xml" \
        "$repository/python/tests/test_cuda.py") || status=1
    summarize || status=1
    return $status
}

# One JSON object of what the programs wrote; fails where one ran nothing, as without a GPU.
summarize() {
    "$work/venv/bin/python" - "$results" <<'PYTHON'
import json, pathlib, sys, xml.etree.ElementTree as tree
folder, summary = pathlib.Path(sys.argv[1]), {}
for file in sorted(folder.glob("test_*.json")):
    report = json.loads(file.read_text())
    cases = [case for suite in report["testsuites"] for case in suite["testsuite"]]
    skipped = [case["name"] for case in cases if case.get("result") == "SKIPPED"]
    failed = [f"{case['classname']}.{case['name']}" for case in cases if case.get("failures")]
    summary[file.stem] = {"ran": len(cases) - len(skipped), "skipped": len(skipped), "failed": failed, "seconds": report["time"]}
suite = tree.parse(folder / "pytest.xml").getroot().find("testsuite").attrib
summary["pytest"] = {key: int(suite[key]) for key in ("tests", "skipped", "failures", "errors")}
(folder / "tests.json").write_text(json.dumps(summary, indent=1) + "\n")
print(json.dumps(summary))
idle = [name for name, part in summary.items() if part.get("ran") == 0]
sys.exit(f"no test ran in {', '.join(idle)}" if idle else 0)
PYTHON
}

benchmark() {
    local small=(--seconds 20)
    [ "$platform" = CUDA ] || small=(--short)
    find_libraries
    cd "$work"
    venv/bin/python "$repository/examples/benchmarks/gpu.py" --platform "$platform" --output "$results" "${small[@]}"
}

# Each step runs in a process group of its own that ends in time.
if [ "${OPENMMFLOW_INSIDE:-}" != "$step" ]; then
    mkdir -p "$work" "$results"
    OPENMMFLOW_INSIDE=$step exec timeout -k 10 "$limit" bash "${BASH_SOURCE[0]}" "$@"
fi
case $step in
    fetch) fetch ;;
    build) build ;;
    test) run_tests ;;
    benchmark) benchmark ;;
esac
