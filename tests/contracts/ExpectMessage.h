#ifndef OPENMMFLOW_TESTS_EXPECTMESSAGE_H_
#define OPENMMFLOW_TESTS_EXPECTMESSAGE_H_
// SPDX-License-Identifier: MIT

#include <gtest/gtest.h>
#include <openmm/OpenMMException.h>
#include <string>

/** Expect that an action throws OpenMMException whose message contains a text. */
template <class Action>
void expectMessage(const Action& action, const std::string& text) {
    try {
        action();
        ADD_FAILURE() << "nothing was thrown; expected: " << text;
    } catch (const OpenMM::OpenMMException& error) {
        EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << "the message was: " << error.what();
    }
}

#endif /*OPENMMFLOW_TESTS_EXPECTMESSAGE_H_*/
