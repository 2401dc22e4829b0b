// SPDX-License-Identifier: MIT

#include "PythonFunction.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

using namespace OpenMMFlow;
using at::Tensor;

std::function<Tensor(const Tensor&)> Python::functionFromPython(PyObject* object) {
    if (!PyCallable_Check(object))
        throw py::type_error("a function is needed");
    Py_INCREF(object);
    const std::shared_ptr<PyObject> function(object, [](PyObject* held) {
        if (!Py_IsInitialized())
            return; // the interpreter has ended, and the object with it
        py::gil_scoped_acquire gil;
        Py_DECREF(held);
    });
    return [function](const Tensor& x) -> Tensor {
        py::gil_scoped_acquire gil;
        try {
            const auto input = py::reinterpret_steal<py::object>(THPVariable_Wrap(x));
            const py::object output = py::handle(function.get())(input);
            require(THPVariable_Check(output.ptr()), "PythonFunction", "type of the result",
                    Py_TYPE(output.ptr())->tp_name, "torch.Tensor");
            return THPVariable_Unpack(output.ptr());
        } catch (py::error_already_set& error) {
            const std::string message = std::string("PythonFunction: the Python function raised ") + error.what();
            if (error.matches(PyExc_KeyboardInterrupt))
                PyErr_SetInterrupt(); // the caller may go on after an OpenMMException: Python raises this one later
            throw OpenMM::OpenMMException(message);
        }
    };
}
