#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The main job, from nothing: makes an environment, builds OpenMM-Flow into it, trains flows of alanine dipeptide, runs
# dynamics that jumps, and compares populations and free energies with an independent reference.
#
#     bash examples/quickstart.sh            12 to 25 minutes on two cores, most to install and build; results in examples/output
#     bash examples/quickstart.sh --short    one or two minutes after that: shows that everything works, with large errors
#
# Other flags go to quickstart.py, settings are in quickstart.yaml, and tests/environment.sh says where things are put.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tests/environment.sh"

set_up OFF
python "$repository/examples/quickstart.py" "$@"
