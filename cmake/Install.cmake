# Installs the library for C++ users: find_package(OpenMMFlow), link OpenMMFlow::OpenMMFlow. (pip installs the component
# "python" instead: see wrappers/CMakeLists.txt.)
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(OPENMMFLOW_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/OpenMMFlow)
install(TARGETS OpenMMFlow LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
install(DIRECTORY openmmapi/include/openmmflow DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp)
configure_package_config_file(cmake/OpenMMFlowConfig.cmake.in ${CMAKE_BINARY_DIR}/OpenMMFlowConfig.cmake
    INSTALL_DESTINATION ${OPENMMFLOW_CMAKE_DIR} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/OpenMMFlowConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/OpenMMFlowConfig.cmake ${CMAKE_BINARY_DIR}/OpenMMFlowConfigVersion.cmake
        cmake/Dependencies.cmake DESTINATION ${OPENMMFLOW_CMAKE_DIR} COMPONENT cpp)

# OpenMM and torch are where they were when this was built.
set_target_properties(OpenMMFlow PROPERTIES INSTALL_RPATH "$ORIGIN;${TORCH_DIR}/lib;${OPENMM_DIR}/lib")

# A program of its own finds what was installed, and runs.
if(OPENMMFLOW_BUILD_TESTS)
    set(prefix ${CMAKE_BINARY_DIR}/installed)
    add_test(NAME installation
        COMMAND ${CMAKE_COMMAND} --install ${CMAKE_BINARY_DIR} --component cpp --prefix ${prefix})
    add_test(NAME cpp_example
        COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${CMAKE_SOURCE_DIR}/examples/cpp ${CMAKE_BINARY_DIR}/cpp_example
                --build-generator ${CMAKE_GENERATOR} --build-options -DCMAKE_PREFIX_PATH=${prefix} --test-command double_well)
    set_tests_properties(installation PROPERTIES FIXTURES_SETUP installed)
    set_tests_properties(cpp_example PROPERTIES FIXTURES_REQUIRED installed)
endif()
