#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The tests for GPUs and their benchmarks, on a machine with a GPU, nvcc, cmake and torch, and without network.
#
#     bash tests/run_gpu.sh fetch WHEELS              on a machine with network: fill the folder WHEELS
#     bash tests/run_gpu.sh build WHEELS              each of these is one call of at most OPENMMFLOW_LIMIT seconds (570):
#     bash tests/run_gpu.sh test WHEELS [RESULTS]     a build that is cut off goes on where it was
#     bash tests/run_gpu.sh benchmark WHEELS [RESULTS]
#
# RESULTS (default: WORK/results) gets a log of each test program with a summary, tests.json, and gpu.json. Settings:
#
# PYTHON               a Python that has torch                        (default: python3)
# OPENMMFLOW_WORK      environment and build folder                   (default: build-gpu in the repository)
# OPENMMFLOW_PLATFORM  CUDA, or another that stands in for it         (default: CUDA)
# OPENMMFLOW_TARGET    of fetch: the Python version of that machine   (default: 3.12)
# OPENMMFLOW_THERE     of fetch: packages that are there already, such as "scipy pytest", which saves their size
set -euo pipefail

step=${1:-} wheels=$(realpath -m "${2:-/}") limit=${OPENMMFLOW_LIMIT:-570}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(realpath -m "${OPENMMFLOW_WORK:-$repository/build-gpu}") platform=${OPENMMFLOW_PLATFORM:-CUDA}
results=$(realpath -m "${3:-$work/results}")

# Test programs, in the order in which they run, and what of each.
programs=(test_flows test_training test_samplers test_energies test_api)
declare -A filters=([test_flows]='*Device*:CudaFlows*:*Contract*:*Charts*-Slow*' [test_training]='*OnDevice*' [test_samplers]='*OnDevice*'
    [test_energies]="*ContextPotentialOn*${platform}*" [test_api]="*${platform}*-Slow*")

if [ $# -lt 2 ] || ! [[ $step =~ ^(fetch|build|test|benchmark)$ ]]; then
    sed -n '3,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi

# Wheels without torch and what comes with it, what Debian has as sources, and Python's headers.
fetch() {
    local target=${OPENMMFLOW_TARGET:-3.12} there=${OPENMMFLOW_THERE:-} debian headers platforms=()
    local names='openmm|swig|scikit-build-core|ninja|pytest|scipy|tqdm|PyYAML|OpenMM-CUDA-13'
    rm -rf "$wheels"/{*.whl,googletest,prefix}
    mkdir -p "$wheels/prefix/include"
    { grep -hE "^($names)==" "$repository"/tests/requirements*.txt
      printf '%s\n' iniconfig pluggy pygments packaging pathspec
    } | grep -viE "^(${there// /|})(=|$)" >"$wheels/requirements.txt"
    for glibc in 34 28 27 17 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    "${PYTHON:-python3}" -m pip download --disable-pip-version-check --progress-bar off -q --no-deps --only-binary=:all: \
        --python-version "$target" --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 \
        --platform manylinux2010_x86_64 --platform manylinux1_x86_64 -d "$wheels" -r "$wheels/requirements.txt"
    debian=$(mktemp -d)
    (cd "$debian" && apt-get download -qq -o APT::Sandbox::User=root googletest nlohmann-json3-dev)
    for package in "$debian"/*.deb; do dpkg-deb -x "$package" "$debian"; done
    cp -r "$debian/usr/include/nlohmann" "$wheels/prefix/include/"
    cp -r "$debian/usr/src/googletest" "$wheels/"
    rm -r "$debian" "$wheels/googletest/googlemock" "$wheels"/googletest/googletest/{docs,samples,test}
    if headers=$("python$target" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null); then
        cp -rL "$headers" "$wheels/prefix/include/"
    else
        echo "no python$target here: its headers (python3-dev) must be on that machine" >&2
    fi
    du -sh "$wheels"
}

# find_packages PYTHON: the folder that holds its torch.
find_packages() {
    "$1" -c 'import importlib.util as u, os; print(os.path.dirname(os.path.dirname(u.find_spec("torch").origin)))'
}

# The environment, in which pip is that of PYTHON, where it has one: Debian's Python may lack the parts for a pip of its own.
make_environment() {
    local outer python=$work/venv/bin/python; outer=$(find_packages "${PYTHON:-python3}")
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv --without-pip "$work/venv"
    echo "$outer" >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
    "$python" -c 'import pip' 2>/dev/null || "$python" -m ensurepip >/dev/null
    "$python" -m pip install --disable-pip-version-check -q --no-index --no-deps --no-compile "$wheels"/*.whl
}

build() {
    local options=() headers
    make_environment
    if [ ! -e "$work/prefix/.done" ]; then
        cmake -S "$wheels/googletest" -B "$work/googletest" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$work/prefix" \
            -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBUILD_GMOCK=OFF >/dev/null
        cmake --build "$work/googletest" --target install -j "$(nproc)" >/dev/null
        cp -r "$wheels/prefix/include" "$work/prefix/" && touch "$work/prefix/.done"
    fi
    headers=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -e "$headers/Python.h" ] ||
        options+=(--config-settings cmake.define.Python3_INCLUDE_DIR="$work/prefix/include/$(basename "$headers")")
    export CMAKE_PREFIX_PATH=$work/prefix OPENMMFLOW_VENV=$work/venv OPENMMFLOW_BUILD=$work/build
    source "$repository/tests/environment.sh"
    export PATH=$venv/bin:$PATH CMAKE_GENERATOR=Ninja CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    # The libraries of the platforms come with the programs that test them.
    build_package ON --config-settings "build.targets=$(IFS=';'; echo "_openmmflow;TestDevice;${programs[*]}")" "${options[@]}"
}

# OpenMM's CUDA Platform looks for CUDA's libraries beside itself: here they are torch's, or the toolkit's.
find_libraries() {
    local folder
    for folder in "$(find_packages "$work/venv/bin/python")"/nvidia/*/lib /usr/local/cuda/lib64; do
        if [ -d "$folder" ]; then LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}; fi
    done
    export LD_LIBRARY_PATH OPENMM_DEFAULT_PLATFORM=$platform
}

# run_in_time NAME COMMAND...: with a log, and cut off in time for a summary.
run_in_time() {
    local name=$1 left=$((limit - SECONDS - 15))
    timeout --foreground -k 5 $((left > 1 ? left : 1)) "${@:2}" >"$results/$name.log" 2>&1 || status=1
    tail -n 3 "$results/$name.log"
}

run_tests() {
    local plugins program status=0
    find_libraries
    plugins=$("$work/venv/bin/python" -c 'import openmm.version as v; print(v.openmm_library_path)')/plugins
    export OPENMM_PLUGIN_DIR=$plugins OMP_NUM_THREADS=1 OPENMMFLOW_BUILD=$work/build
    rm -rf "$work/reports" "$results/tests.json"
    cd "$work" # the installed package is tested, not its sources
    run_in_time pytest venv/bin/python -m pytest -q -p no:cacheprovider --junitxml="$work/reports/pytest.xml" \
        "$repository"/python/tests/test_{cuda,device}.py
    for program in "${programs[@]}"; do
        run_in_time "$program" "$work/build/tests/$program" --gtest_filter="${filters[$program]}" \
            --gtest_output="json:$work/reports/$program.json"
    done
    summarize || status=1
    return $status
}

# One JSON object of what the programs wrote. Fails where one left no report, as after a crash, and where all tests of a suite
# were skipped, as without a GPU; with a stand-in for CUDA, those of flows on a GPU may be.
summarize() {
    "$work/venv/bin/python" - "$work/reports" "$results" "$platform" "${programs[@]}" <<'PYTHON'
import json, pathlib, sys, xml.etree.ElementTree as tree
reports, results, platform = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
summary, problems = {}, []
for name in sys.argv[4:]:
    if not (reports / f"{name}.json").exists():
        begun = [line for line in (results / f"{name}.log").read_text().splitlines() if line.startswith("[ RUN")]
        problems.append(f"{name} did not end: {begun[-1] if begun else 'no test began'}")
        continue
    report = json.loads((reports / f"{name}.json").read_text())
    suites = {suite["name"]: suite["testsuite"] for suite in report["testsuites"]}
    cases = [case for suite in suites.values() for case in suite]
    skipped = [case for case in cases if case.get("result") == "SKIPPED"]
    failed = [f"{case['classname']}.{case['name']}" for case in cases if case.get("failures")]
    summary[name] = {"ran": len(cases) - len(skipped), "skipped": len(skipped), "failed": failed, "seconds": report["time"]}
    idle = [suite for suite, cases in suites.items() if all(case in skipped for case in cases)] if suites else [name]
    problems += [f"{case} failed" for case in failed]
    problems += [f"no test ran of {suite}" for suite in idle if suite != "CudaFlows" or platform == "CUDA"]
if (reports / "pytest.xml").exists():
    suite = tree.parse(reports / "pytest.xml").getroot().find("testsuite").attrib
    found = summary["pytest"] = {key: int(suite[key]) for key in ("tests", "skipped", "failures", "errors")}
    if found["failures"] + found["errors"] > 0 or found["tests"] == found["skipped"]:
        problems.append(f"pytest: {found}")
else:
    problems.append("pytest did not end")
summary["problems"] = problems
(results / "tests.json").write_text(json.dumps(summary, indent=1) + "\n")
print(json.dumps(summary))
sys.exit(1 if problems else 0)
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
