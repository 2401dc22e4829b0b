// SPDX-License-Identifier: MIT
#define OPENMMFLOW_KERNEL_VARIANT KernelAvx2
#include "NetworkKernel.cpp"
