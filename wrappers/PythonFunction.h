#ifndef OPENMMFLOW_WRAPPERS_PYTHONFUNCTION_H_
#define OPENMMFLOW_WRAPPERS_PYTHONFUNCTION_H_
// SPDX-License-Identifier: MIT

#include <ATen/core/Tensor.h>
#include <functional>

struct _object; // PyObject

namespace OpenMMFlow::Python {

/**
 * A Python callable that takes a float64 tensor and returns a tensor, as a C++ function: autograd passes through it. It
 * keeps the object, and may be called from a thread with or without the GIL. Exceptions become OpenMMException; Ctrl-C
 * is passed on. Needs the GIL.
 */
std::function<at::Tensor(const at::Tensor&)> functionFromPython(_object* object);

} // namespace OpenMMFlow::Python

#endif /*OPENMMFLOW_WRAPPERS_PYTHONFUNCTION_H_*/
