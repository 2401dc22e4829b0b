#ifndef OPENMMFLOW_TESTS_CONTRACTS_DEVICECASES_H_
#define OPENMMFLOW_TESTS_CONTRACTS_DEVICECASES_H_
// SPDX-License-Identifier: MIT

#include "TestDevice.h"
#include "openmmflow/energies/systems/DoubleWell.h"
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

/** What is done on a device and on the processor: two wells, with energies by OpenMM. */
inline const DoubleWell& makeDeviceWell() {
    static const DoubleWell well({1, 6, 0.2, 1});
    return well;
}

inline std::shared_ptr<ReducedPotential> makeDevicePotential() {
    ContextPotential::Options options;
    options.platform = "Reference";
    options.numContexts = 1;
    return makeDeviceWell().createPotential(options);
}

/** The names of cases, as parameters of tests. @param cases  {name: any} */
template <class Cases>
auto nameEach(const Cases& cases) {
    std::vector<std::string> names;
    for (const auto& named : cases)
        names.push_back(named.first);
    return testing::ValuesIn(names);
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_CONTRACTS_DEVICECASES_H_*/
