#ifndef OPENMMFLOW_LATENT_EXPORT_H_
#define OPENMMFLOW_LATENT_EXPORT_H_
// SPDX-License-Identifier: MIT

/** Marks what libOpenMMFlow exports. */
#define OPENMMFLOW_EXPORT __attribute__((visibility("default")))

#endif /*OPENMMFLOW_LATENT_EXPORT_H_*/
