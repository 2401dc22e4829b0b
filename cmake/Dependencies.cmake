# Finds OpenMM, LibTorch and nlohmann-json, and says exactly what is missing or of a wrong version.
#
# OPENMM_DIR  folder with include/OpenMM.h and lib/libOpenMM.so   (default: the pip wheel of Python3)
# TORCH_DIR   folder with include/torch/ and lib/libtorch_cpu.so  (default: the pip wheel of Python3)

if(NOT OPENMM_DIR OR NOT TORCH_DIR OR OPENMMFLOW_BUILD_PYTHON)
    find_package(Python3 REQUIRED COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
endif()

function(openmmflow_ask_python variable code hint)
    execute_process(COMMAND ${Python3_EXECUTABLE} -c "${code}" OUTPUT_VARIABLE answer ERROR_VARIABLE problem
                    RESULT_VARIABLE status OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${hint}\n${Python3_EXECUTABLE} said: ${problem}")
    endif()
    set(${variable} "${answer}" PARENT_SCOPE)
endfunction()

# The wheels are found without importing them: importing torch takes seconds and needs its own dependencies.
set(OPENMMFLOW_FIND_WHEEL "import importlib.util as u, os, sys; s = u.find_spec('@') or sys.exit('no module @'); print(os.path.dirname(s.origin))")
if(NOT OPENMM_DIR)
    string(REPLACE "@" "openmm" code "${OPENMMFLOW_FIND_WHEEL}")
    openmmflow_ask_python(openmm_module "${code}" "OpenMM was not found: pip install openmm, or set OPENMM_DIR.")
    cmake_path(SET OPENMM_DIR NORMALIZE "${openmm_module}/../OpenMM.libs")
endif()
if(NOT TORCH_DIR)
    string(REPLACE "@" "torch" code "${OPENMMFLOW_FIND_WHEEL}")
    openmmflow_ask_python(TORCH_DIR "${code}" "LibTorch was not found: pip install torch, or set TORCH_DIR.")
endif()
foreach(needed "${OPENMM_DIR}/include/OpenMM.h" "${OPENMM_DIR}/lib/libOpenMM.so" "${TORCH_DIR}/include/torch/headeronly/version.h"
               "${TORCH_DIR}/lib/libtorch_cpu.so")
    if(NOT EXISTS "${needed}")
        message(FATAL_ERROR "OpenMM-Flow needs ${needed}, which does not exist: check OPENMM_DIR and TORCH_DIR.")
    endif()
endforeach()

# The ABI of both is C++, so the minor version a build was made with is the one it runs with.
file(STRINGS "${TORCH_DIR}/include/torch/headeronly/version.h" torch_lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR) [0-9]+")
string(REGEX REPLACE ".*TORCH_VERSION_MAJOR ([0-9]+).*TORCH_VERSION_MINOR ([0-9]+).*" "\\1.\\2" OPENMMFLOW_TORCH_VERSION "${torch_lines}")
if(OPENMMFLOW_TORCH_VERSION VERSION_LESS 2.11)
    message(FATAL_ERROR "torch is ${OPENMMFLOW_TORCH_VERSION}, but must be at least 2.11.")
endif()
if(NOT EXISTS "${OPENMM_DIR}/include/openmm/internal/CustomCPPForceImpl.h")
    message(FATAL_ERROR "OpenMM in ${OPENMM_DIR} is too old: it must be at least 8.4.")
endif()
message(STATUS "OpenMM: ${OPENMM_DIR}")
message(STATUS "LibTorch ${OPENMMFLOW_TORCH_VERSION}: ${TORCH_DIR}")

# OpenMM::OpenMM
add_library(OpenMM::OpenMM SHARED IMPORTED)
set_target_properties(OpenMM::OpenMM PROPERTIES
    IMPORTED_LOCATION "${OPENMM_DIR}/lib/libOpenMM.so"
    INTERFACE_INCLUDE_DIRECTORIES "${OPENMM_DIR}/include")

# Torch::CPU. torch's own CMake package wants a CUDA toolkit and fails to link against the wheel, so these are plain targets.
add_library(Torch::C10 SHARED IMPORTED)
set_target_properties(Torch::C10 PROPERTIES IMPORTED_LOCATION "${TORCH_DIR}/lib/libc10.so")
add_library(Torch::CPU SHARED IMPORTED)
set_target_properties(Torch::CPU PROPERTIES
    IMPORTED_LOCATION "${TORCH_DIR}/lib/libtorch_cpu.so"
    INTERFACE_INCLUDE_DIRECTORIES "${TORCH_DIR}/include;${TORCH_DIR}/include/torch/csrc/api/include"
    INTERFACE_LINK_LIBRARIES Torch::C10
    INTERFACE_LINK_OPTIONS "-Wl,--allow-shlib-undefined")

find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp)
if(NOT NLOHMANN_JSON_INCLUDE_DIR)
    message(FATAL_ERROR "nlohmann/json.hpp was not found: install nlohmann-json3-dev, or set NLOHMANN_JSON_INCLUDE_DIR.")
endif()
add_library(nlohmann_json_headers INTERFACE)
target_include_directories(nlohmann_json_headers SYSTEM INTERFACE ${NLOHMANN_JSON_INCLUDE_DIR})

find_package(Threads REQUIRED)
