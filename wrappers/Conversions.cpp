// SPDX-License-Identifier: MIT

#include "Conversions.h"
#include <ATen/ATen.h>
#include <limits>
#include <openmm/OpenMMException.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

py::object importName(const char* module, const char* name) {
    return py::module_::import(module).attr(name);
}

/** Take a Quantity in OpenMM's units; anything else as it is. */
py::object stripUnits(py::handle object) {
    if (!py::isinstance(object, importName("openmm.unit", "Quantity")))
        return py::reinterpret_borrow<py::object>(object);
    return object.attr("value_in_unit_system")(importName("openmm.unit", "md_unit_system"));
}

/** The same for a Quantity or a list of them. */
py::object stripAllUnits(py::handle object) {
    py::object stripped = stripUnits(object);
    if (!py::isinstance<py::list>(stripped) && !py::isinstance<py::tuple>(stripped))
        return stripped;
    py::list items;
    for (py::handle item : stripped)
        items.append(stripUnits(item));
    return items;
}

Array<double> doublesOf(py::handle object) {
    return Array<double>(stripAllUnits(object));
}

/** Integers, refusing what numpy would round or wrap. */
Array<std::int64_t> integersOf(py::handle object) {
    const py::array any = importName("numpy", "asarray")(object);
    const char kind = any.dtype().kind();
    if (kind != 'i' && kind != 'u' && any.size() != 0)
        throw py::type_error("integers are needed, not " + py::repr(any.dtype()).cast<std::string>());
    Array<std::int64_t> integers(any);
    for (py::ssize_t i = 0; i < integers.size(); i++)
        if (integers.data()[i] < std::numeric_limits<int>::min() ||
            integers.data()[i] > std::numeric_limits<int>::max())
            throw py::value_error("an integer is out of range: " + std::to_string(integers.data()[i]));
    return integers;
}

/** The number of rows of an array [n, columns]; an empty list has none. */
py::ssize_t countRows(const py::array& array, py::ssize_t columns) {
    if (array.size() == 0)
        return 0;
    if (array.ndim() != 2 || array.shape(1) != columns)
        throw py::type_error("a list of rows of " + std::to_string(columns) + " numbers is needed");
    return array.shape(0);
}

void checkFlat(const py::array& array) {
    if (array.ndim() != 1)
        throw py::type_error("a list of numbers is needed");
}

PyObject* release(py::object object) {
    return object.release().ptr();
}

py::object vec3(const OpenMM::Vec3& v) {
    return importName("openmm", "Vec3")(v[0], v[1], v[2]);
}

} // namespace

Tensor Python::anyTensorFromPython(PyObject* object) {
    if (!THPVariable_Check(object))
        throw py::type_error("a torch.Tensor is needed");
    return THPVariable_Unpack(object);
}

void Python::fromPython(PyObject* object, Tensor& value) {
    if (THPVariable_Check(object)) {
        value = THPVariable_Unpack(object).to(at::kDouble);
        return;
    }
    if (object == Py_None)
        throw py::type_error("a tensor, an array or a list of numbers is needed, not None");
    const py::object requirements = py::make_tuple("C", "W"); // from_numpy() warns of arrays that can't be written
    const py::object array = importName("numpy", "require")(stripAllUnits(object), "float64", requirements);
    value = THPVariable_Unpack(importName("torch", "from_numpy")(array).ptr());
}

void Python::fromPython(PyObject* object, std::vector<int>& value) {
    const auto array = integersOf(object);
    checkFlat(array);
    value.assign(array.data(), array.data() + array.size());
}

void Python::fromPython(PyObject* object, std::vector<double>& value) {
    const auto array = doublesOf(object);
    checkFlat(array);
    value.assign(array.data(), array.data() + array.size());
}

void Python::fromPython(PyObject* object, std::vector<std::pair<int, int>>& value) {
    const auto array = integersOf(object);
    value.clear();
    for (py::ssize_t i = 0; i < countRows(array, 2); i++)
        value.emplace_back(array.at(i, 0), array.at(i, 1));
}

void Python::fromPython(PyObject* object, std::vector<std::vector<int>>& value) {
    value.clear();
    for (const py::handle row : py::reinterpret_borrow<py::iterable>(object)) {
        value.emplace_back();
        fromPython(row.ptr(), value.back());
    }
}

void Python::fromPython(PyObject* object, OpenMM::Vec3& value) {
    const auto array = doublesOf(object);
    if (array.ndim() != 1 || array.size() != 3)
        throw py::type_error("three numbers are needed");
    value = OpenMM::Vec3(array.at(0), array.at(1), array.at(2));
}

void Python::fromPython(PyObject* object, std::vector<OpenMM::Vec3>& value) {
    const auto array = doublesOf(object);
    value.clear();
    for (py::ssize_t i = 0; i < countRows(array, 3); i++)
        value.emplace_back(array.at(i, 0), array.at(i, 1), array.at(i, 2));
}

void Python::fromPython(PyObject* object, std::map<std::string, std::string>& value) {
    value = py::handle(object).cast<std::map<std::string, std::string>>();
}

void Python::fromPython(PyObject* object, std::map<std::string, double>& value) {
    value = py::handle(object).cast<std::map<std::string, double>>();
}

void Python::fromPython(PyObject* object, nlohmann::json& value) {
    value = nlohmann::json::parse(importName("json", "dumps")(py::handle(object)).cast<std::string>());
}

void Python::fromPython(PyObject* object, at::ScalarType& value) {
    value = py::handle(object).cast<at::ScalarType>();
}

void Python::fromPython(PyObject* object, double& value) {
    value = PyFloat_AsDouble(PyFloat_Check(object) ? object : stripUnits(object).ptr());
    if (PyErr_Occurred())
        throw py::error_already_set();
}

std::string Python::pathFromPython(PyObject* object) {
    PyObject* encoded = nullptr;
    if (!PyUnicode_FSConverter(object, &encoded))
        throw py::error_already_set();
    return py::reinterpret_steal<py::bytes>(encoded);
}

std::string Python::bytesFromPython(PyObject* object) {
    if (!PyBytes_Check(object))
        throw py::type_error("bytes are needed");
    return py::reinterpret_borrow<py::bytes>(object);
}

PyObject* Python::toPython(const Tensor& value) {
    return THPVariable_Wrap(value);
}

PyObject* Python::toPython(const NamedTensors& value) {
    py::dict tensors;
    for (const auto& [name, tensor] : value)
        tensors[py::str(name)] = py::reinterpret_steal<py::object>(toPython(tensor));
    return release(tensors);
}

PyObject* Python::toPython(const std::vector<int>& value) {
    return release(py::cast(value));
}

PyObject* Python::toPython(const std::vector<double>& value) {
    return release(py::cast(value));
}

PyObject* Python::toPython(const std::vector<std::pair<int, int>>& value) {
    return release(py::cast(value));
}

PyObject* Python::toPython(const std::vector<std::vector<int>>& value) {
    return release(py::cast(value));
}

PyObject* Python::toPython(const OpenMM::Vec3& value) {
    return release(vec3(value));
}

PyObject* Python::toPython(const std::vector<OpenMM::Vec3>& value) {
    py::list list;
    for (const auto& v : value)
        list.append(vec3(v));
    return release(list);
}

PyObject* Python::toPython(const std::map<std::string, std::string>& value) {
    return release(py::cast(value));
}

PyObject* Python::toPython(const std::map<std::string, double>& value) {
    return release(py::cast(value));
}

PyObject* Python::toPython(const nlohmann::json& value) {
    return release(importName("json", "loads")(value.dump()));
}

PyObject* Python::bytesToPython(const std::string& value) {
    return release(py::bytes(value));
}

PyObject* Python::enumToPython(const char* name, int value) {
    return release(importName("openmmflow.openmmflow", name)(value));
}

int Python::enumFromPython(const char* name, PyObject* object) {
    return importName("openmmflow.openmmflow", name)(py::handle(object)).cast<int>();
}

PyObject* Python::quantityToPython(double value, const char* unit) {
    return release(importName("openmm.unit", "Quantity")(value, importName("openmm.unit", unit)));
}

void Python::raise() {
    if (PyErr_CheckSignals() != 0)
        return; // Ctrl-C goes before
    try {
        throw;
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const OpenMM::OpenMMException& error) {
        PyErr_SetString(importName("openmm", "OpenMMException").ptr(), error.what());
    } catch (const c10::Error& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
}
