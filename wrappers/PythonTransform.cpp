// SPDX-License-Identifier: MIT

#include "PythonTransform.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

std::string where(const char* method) {
    return std::string("PythonTransform::") + method;
}

/** Run something that calls Python, from a thread with or without the GIL. */
template <class Function>
auto callPython(const char* method, const Function& function) {
    py::gil_scoped_acquire gil;
    try {
        return function();
    } catch (py::error_already_set& error) {
        const std::string message = where(method) + ": the Python object raised " + error.what();
        if (error.matches(PyExc_KeyboardInterrupt))
            PyErr_SetInterrupt(); // the caller may take OpenMMException for a failed trial: Python raises this one
                                  // later
        throw OpenMM::OpenMMException(message);
    }
}

Tensor tensorOf(py::handle object, const char* method, const char* name) {
    require(THPVariable_Check(object.ptr()), where(method), std::string("type of ") + name,
            Py_TYPE(object.ptr())->tp_name, "torch.Tensor");
    return THPVariable_Unpack(object.ptr()).to(at::kDouble);
}

} // namespace

PythonTransform::PythonTransform(PyObject* object, int inputSize, int outputSize, bool constantLogDet)
    : object(object), inputSize(inputSize), outputSize(outputSize == 0 ? inputSize : outputSize),
      constantLogDet(constantLogDet) {
    require(inputSize >= 1, where("PythonTransform"), "inputSize", inputSize, "at least 1");
    require(outputSize >= 0, where("PythonTransform"), "outputSize", outputSize, "at least 0");
    py::gil_scoped_acquire gil;
    for (const char* method : {"forward", "inverse"})
        require(py::hasattr(object, method), where("PythonTransform"), "object", Py_TYPE(object)->tp_name,
                "one with the methods forward and inverse");
    Py_INCREF(object);
}

PythonTransform::~PythonTransform() {
    if (!Py_IsInitialized())
        return; // the interpreter has ended, and the object with it
    py::gil_scoped_acquire gil;
    Py_DECREF(object);
}

PyObject* PythonTransform::getObject() const {
    py::gil_scoped_acquire gil;
    return Py_NewRef(object);
}

TransformResult PythonTransform::forward(const Tensor& z) const {
    return call("forward", z, inputSize, outputSize);
}

TransformResult PythonTransform::inverse(const Tensor& x) const {
    return call("inverse", x, outputSize, inputSize);
}

TransformResult PythonTransform::call(const char* method, const Tensor& argument, int argumentSize,
                                      int resultSize) const {
    require(argument.dim() == 2 && argument.size(1) == argumentSize, where(method), "shape of the argument",
            argument.sizes(), "[batch, " + std::to_string(argumentSize) + "]");
    const TransformResult result = callPython(method, [&]() -> TransformResult {
        const auto input = py::reinterpret_steal<py::object>(THPVariable_Wrap(argument));
        const py::object output = py::handle(object).attr(method)(input);
        require(py::isinstance<py::tuple>(output) && py::len(output) == 2, where(method), "result",
                Py_TYPE(output.ptr())->tp_name, "a tuple (value, logDet)");
        const py::tuple pair = output;
        return {tensorOf(pair[0], method, "value"), tensorOf(pair[1], method, "logDet")};
    });
    require(result.value.sizes() == at::IntArrayRef({argument.size(0), resultSize}), where(method), "shape of value",
            result.value.sizes(), "[batch, " + std::to_string(resultSize) + "]");
    require(result.logDet.sizes() == at::IntArrayRef({argument.size(0)}), where(method), "shape of logDet",
            result.logDet.sizes(), "[batch]");
    return result;
}

nlohmann::json PythonTransform::getArchitecture() const {
    throw OpenMM::OpenMMException("PythonTransform::getArchitecture: a transform that Python computes can't be saved "
                                  "or copied: save the Python object by its own means, and wrap it again");
}

NamedTensors PythonTransform::getParameters() const {
    return collect("named_parameters");
}

NamedTensors PythonTransform::getBuffers() const {
    return collect("named_buffers");
}

NamedTensors PythonTransform::collect(const char* method) const {
    return callPython(method, [&] {
        NamedTensors tensors;
        if (!py::hasattr(object, method))
            return tensors;
        for (py::handle item : py::handle(object).attr(method)()) {
            const auto pair = item.cast<py::tuple>();
            tensors.emplace_back(pair[0].cast<std::string>(), THPVariable_Unpack(pair[1].ptr()));
        }
        return tensors;
    });
}
