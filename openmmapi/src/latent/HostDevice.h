#ifndef OPENMMFLOW_LATENT_HOSTDEVICE_H_
#define OPENMMFLOW_LATENT_HOSTDEVICE_H_
// SPDX-License-Identifier: MIT

/** Marks functions that are compiled for processors and, by nvcc, for GPUs. */
#ifdef __CUDACC__
#define OPENMMFLOW_HOST_DEVICE __host__ __device__
#else
#define OPENMMFLOW_HOST_DEVICE
#endif

#endif /*OPENMMFLOW_LATENT_HOSTDEVICE_H_*/
