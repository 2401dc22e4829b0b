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

# In a wheel OpenMM and torch are neighbours; elsewhere they are where they were when this was built.
if(SKBUILD)
    set_target_properties(OpenMMFlow PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib;$ORIGIN/../OpenMM.libs/lib")
else()
    set_target_properties(OpenMMFlow PROPERTIES INSTALL_RPATH "$ORIGIN;${TORCH_DIR}/lib;${OPENMM_DIR}/lib")
endif()
