// SPDX-License-Identifier: MIT
// How types cross between Python and C++. The work is done by the overloads of Conversions.h.

%{
#include "Conversions.h"
%}

/* Every C++ exception becomes Python's; with -threads, $action runs without the GIL. */
%exception {
    try {
        $action
    } catch (...) {
        OpenMMFlow::Python::raise();
        SWIG_fail;
    }
}

%define %convert_or_fail(STATEMENT...)
    try {
        STATEMENT;
    } catch (...) {
        OpenMMFlow::Python::raise();
        SWIG_fail;
    }
%enddef

/* Values that Python takes. A typecheck that always agrees leaves it to the conversion to say what is wrong: overloads
   differ in their number of arguments. */
%define %value_in(TYPE...)
%typemap(in) TYPE (TYPE temp) { %convert_or_fail(OpenMMFlow::Python::fromPython($input, temp)) $1 = temp; }
%typemap(in) const TYPE& (TYPE temp) { %convert_or_fail(OpenMMFlow::Python::fromPython($input, temp)) $1 = &temp; }
%typemap(typecheck, precedence=SWIG_TYPECHECK_POINTER) TYPE, const TYPE& { $1 = 1; }
%enddef

%define %value_out(TYPE...)
%typemap(out) TYPE { %convert_or_fail($result = OpenMMFlow::Python::toPython(static_cast<const TYPE&>($1))) }
%typemap(out) const TYPE& { %convert_or_fail($result = OpenMMFlow::Python::toPython(*$1)) }
%enddef

/* Both. Members of structs are values too, as the module has naturalvar=1. */
%define %value(TYPE...)
%value_in(TYPE)
%value_out(TYPE)
%enddef

%value(at::Tensor)
%value(std::vector<int>)
%value(std::vector<double>)
%value(std::vector<std::pair<int, int>>)
%value(std::vector<std::vector<int>>)
%value(OpenMM::Vec3)
%value(std::vector<OpenMM::Vec3>)
%value(%arg(std::map<std::string, std::string>))
%value(%arg(std::map<std::string, double>))
%value(nlohmann::json)
%value_in(at::ScalarType)
%value_out(OpenMMFlow::NamedTensors)
%value_in(double)

/* Arguments that are not data keep their dtype. */
%typemap(in) const at::Tensor& raw (at::Tensor temp), const at::Tensor& circular (at::Tensor temp),
            const at::Tensor& rows (at::Tensor temp) {
    %convert_or_fail(temp = OpenMMFlow::Python::anyTensorFromPython($input))
    $1 = &temp;
}
/* No weights: all equal. */
%typemap(in) const at::Tensor& logWeight (at::Tensor temp) {
    if ($input != Py_None)
        %convert_or_fail(OpenMMFlow::Python::fromPython($input, temp))
    $1 = &temp;
}

/* Functions of x. */
%typemap(in) OpenMMFlow::ReactionCoordinate { %convert_or_fail($1 = OpenMMFlow::Python::functionFromPython($input)) }
%typemap(typecheck, precedence=SWIG_TYPECHECK_POINTER) OpenMMFlow::ReactionCoordinate { $1 = 1; }

%typemap(in) const std::string& path (std::string temp) {
    %convert_or_fail(temp = OpenMMFlow::Python::pathFromPython($input))
    $1 = &temp;
}
%typemap(in) const std::string& bytes (std::string temp) {
    %convert_or_fail(temp = OpenMMFlow::Python::bytesFromPython($input))
    $1 = &temp;
}
%typemap(freearg) const std::string& path, const std::string& bytes ""
%typemap(typecheck, precedence=SWIG_TYPECHECK_STRING) const std::string& path, const std::string& bytes { $1 = 1; }
%define %returns_bytes(FUNCTION)
%typemap(out) std::string FUNCTION { %convert_or_fail($result = OpenMMFlow::Python::bytesToPython($1)) }
%enddef

%define %returns_quantity(FUNCTION, UNIT)
%typemap(out) double FUNCTION { %convert_or_fail($result = OpenMMFlow::Python::quantityToPython($1, #UNIT)) }
%enddef

/* A C++ enum class as an enum.IntEnum; its members are also in the module as NAME_Member. */
%define %int_enum(NAME, MEMBERS...)
%typemap(in) OpenMMFlow::NAME {
    %convert_or_fail($1 = static_cast<OpenMMFlow::NAME>(OpenMMFlow::Python::enumFromPython(#NAME, $input)))
}
%typemap(out) OpenMMFlow::NAME {
    %convert_or_fail($result = OpenMMFlow::Python::enumToPython(#NAME, static_cast<int>($1)))
}
%typemap(typecheck, precedence=SWIG_TYPECHECK_INTEGER) OpenMMFlow::NAME { $1 = 1; }
%pythoncode %{
NAME = enum.IntEnum(#NAME, #MEMBERS, start=0, module=__name__)
globals().update({#NAME "_" + member.name: member for member in NAME})
%}
%enddef

/* A base class held by shared_ptr comes back as the class it is. */
%{
template <class T> const char* sharedTypeName();

template <class T, class Base> static bool wrapIf(const std::shared_ptr<Base>& object, PyObject*& result) {
    const auto derived = std::dynamic_pointer_cast<T>(object);
    if (derived == nullptr)
        return false;
    static swig_type_info* const type = SWIG_TypeQuery(sharedTypeName<T>());
    result = SWIG_NewPointerObj(new std::shared_ptr<T>(derived), type, SWIG_POINTER_OWN);
    return true;
}

/* The most derived first, the base last. */
template <class... Types, class Base> static PyObject* wrapDynamic(const std::shared_ptr<Base>& object) {
    PyObject* result = nullptr;
    if ((wrapIf<Types>(object, result) || ...))
        return result;
    Py_RETURN_NONE;
}

template <class... Types, class Base> static PyObject* wrapDynamicList(const std::vector<std::shared_ptr<Base>>& objects) {
    PyObject* list = PyList_New(static_cast<Py_ssize_t>(objects.size()));
    for (size_t i = 0; list != nullptr && i < objects.size(); i++)
        PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), wrapDynamic<Types...>(objects[i]));
    return list;
}
%}

%define %shared_class(NAME)
%shared_ptr(OpenMMFlow::NAME)
%insert("header") {
template <> const char* sharedTypeName<OpenMMFlow::NAME>() {
    return "std::shared_ptr< OpenMMFlow::NAME > *";
}
}
%enddef

%define %returns_dynamic(BASE, TYPES...)
%typemap(out) std::shared_ptr<OpenMMFlow::BASE> { $result = wrapDynamic<TYPES>($1); }
%typemap(out) const std::shared_ptr<OpenMMFlow::BASE>& { $result = wrapDynamic<TYPES>(*$1); }
%typemap(out) const std::vector<std::shared_ptr<OpenMMFlow::BASE>>& { $result = wrapDynamicList<TYPES>(*$1); }
%enddef
