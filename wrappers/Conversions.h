#ifndef OPENMMFLOW_WRAPPERS_CONVERSIONS_H_
#define OPENMMFLOW_WRAPPERS_CONVERSIONS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include <Python.h>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <openmm/Vec3.h>
#include <string>
#include <utility>
#include <vector>

/**
 * Values that cross between Python and C++, one pair of overloads for each type; typemaps.i calls them by name.
 *
 * fromPython() takes a borrowed reference, toPython() returns a new one. Both need the GIL and throw pybind11's or any
 * other exception, which raise() turns into Python's. OpenMM's Quantities are taken in its units (nm, ps, K, ...).
 */
namespace OpenMMFlow::Python {

/** A torch.Tensor is used as it is, graph and storage; numpy arrays share storage; all become float64 if they are not.
 */
void fromPython(PyObject* object, at::Tensor& value);
/** The same, but the dtype stays, for the few arguments that are not data. */
at::Tensor anyTensorFromPython(PyObject* object);
void fromPython(PyObject* object, std::vector<int>& value);
void fromPython(PyObject* object, std::vector<double>& value);
void fromPython(PyObject* object, std::vector<std::pair<int, int>>& value);
void fromPython(PyObject* object, std::vector<std::vector<int>>& value);
void fromPython(PyObject* object, OpenMM::Vec3& value);
void fromPython(PyObject* object, std::vector<OpenMM::Vec3>& value);
void fromPython(PyObject* object, std::map<std::string, std::string>& value);
void fromPython(PyObject* object, std::map<std::string, double>& value);
void fromPython(PyObject* object, nlohmann::json& value);
void fromPython(PyObject* object, at::ScalarType& value);
/** A number, or a Quantity in any unit. */
void fromPython(PyObject* object, double& value);
/** A str or anything with __fspath__, in the file system's encoding. */
std::string pathFromPython(PyObject* object);
std::string bytesFromPython(PyObject* object);

PyObject* toPython(const at::Tensor& value);
PyObject* toPython(const NamedTensors& value);
PyObject* toPython(const std::vector<int>& value);
PyObject* toPython(const std::vector<double>& value);
PyObject* toPython(const std::vector<std::pair<int, int>>& value);
PyObject* toPython(const std::vector<std::vector<int>>& value);
PyObject* toPython(const OpenMM::Vec3& value);
PyObject* toPython(const std::vector<OpenMM::Vec3>& value);
PyObject* toPython(const std::map<std::string, std::string>& value);
PyObject* toPython(const std::map<std::string, double>& value);
PyObject* toPython(const nlohmann::json& value);
PyObject* bytesToPython(const std::string& value);

/** A member of one of the package's enum.IntEnum classes, and its number. */
PyObject* enumToPython(const char* name, int value);
int enumFromPython(const char* name, PyObject* object);
/** unit.Quantity(value, unit) with a unit of openmm.unit. */
PyObject* quantityToPython(double value, const char* unit);

/** Set the Python error that stands for the C++ exception now being handled. */
void raise();

} // namespace OpenMMFlow::Python

#endif /*OPENMMFLOW_WRAPPERS_CONVERSIONS_H_*/
