// SPDX-License-Identifier: MIT
#define OPENMMFLOW_SPLINE_VARIANT SplineAvx2
#include "SplineKernel.cpp"
