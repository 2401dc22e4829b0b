#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# All tests, C++ and Python, on a machine with only Debian's and Python's packages. See tests/environment.sh for its settings.
#
#     bash tests/run.sh           the tests of every change
#     bash tests/run.sh --slow    those that take minutes: statistics with many replicas, trained flows
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

slow=false
for argument in "$@"; do
    case $argument in
        --slow) slow=true ;;
        *) echo "usage: bash tests/run.sh [--slow]" >&2; exit 2 ;;
    esac
done

set_up ON

status=0
labels=(-LE slow) markers=(-m "not slow")
if $slow; then labels=(-L slow) markers=(-m slow); fi
say "C++ tests"
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" "${labels[@]}" || status=1
say "Python tests"
# From outside python/, so that the installed package is tested and not its sources. A file's tests share what they trained.
(cd "$build" && pytest -q -ra -p no:cacheprovider -n "$(nproc)" --dist loadfile "${markers[@]}" "$repository/python/tests" </dev/null) || status=1

if [ $status -eq 0 ]; then say "All tests passed."; else say "Some tests FAILED: see above."; fi
exit $status
