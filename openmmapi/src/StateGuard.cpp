// SPDX-License-Identifier: MIT

#include "StateGuard.h"

using namespace OpenMMFlow;
using namespace OpenMM;

StateGuard::StateGuard(ContextImpl& context, MovedAtomsKernel& atoms)
    : context(context), atoms(atoms), parameters(context.getParameters()), time(context.getTime()),
      stepCount(context.getStepCount()) {
    atoms.save(context);
}

StateGuard::~StateGuard() {
    try {
        for (const auto& [name, value] : parameters)
            if (context.getParameter(name) != value)
                context.setParameter(name, value);
        context.setTime(time);
        context.setStepCount(stepCount);
        if (!moved)
            atoms.restore(context);
    } catch (...) { // what throws here as well leaves nothing to put back
    }
}
