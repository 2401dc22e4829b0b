// SPDX-License-Identifier: MIT

#include "FlowLangevinIntegratorProxy.h"
#include "SerializationTools.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/latent/Check.h"

using namespace OpenMMFlow;
using namespace OpenMM;

// Enums are written by name, so that a file does not depend on their order.
static const std::vector<std::pair<JumpKind, std::string>> kinds = {{JumpKind::Independence, "Independence"},
                                                                    {JumpKind::PriorPreserving, "PriorPreserving"},
                                                                    {JumpKind::RandomWalk, "RandomWalk"}};
static const std::vector<std::pair<AcceptanceTest, std::string>> tests = {{AcceptanceTest::Metropolis, "Metropolis"},
                                                                          {AcceptanceTest::Barker, "Barker"}};
static const std::vector<std::pair<ProposalPreparation, std::string>> preparations = {
    {ProposalPreparation::WhenNeeded, "WhenNeeded"},
    {ProposalPreparation::Ahead, "Ahead"},
    {ProposalPreparation::AheadWithEnergies, "AheadWithEnergies"}};

static const std::vector<std::pair<StageDynamics, std::string>> dynamics = {
    {StageDynamics::Langevin, "Langevin"},
    {StageDynamics::LangevinShadowWork, "LangevinShadowWork"},
    {StageDynamics::Metropolised, "Metropolised"}};
static const std::vector<std::pair<MiddleJump, std::string>> middleJumps = {{MiddleJump::Decided, "Decided"},
                                                                            {MiddleJump::Always, "Always"}};

template <class Enum>
static std::string findName(const std::vector<std::pair<Enum, std::string>>& names, Enum value) {
    return std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.first == value; })->second;
}

template <class Enum>
static Enum readEnum(const SerializationNode& node, const char* property,
                     const std::vector<std::pair<Enum, std::string>>& names) {
    const std::string& text = node.getStringProperty(property);
    const auto found = std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.second == text; });
    require(found != names.end(), "FlowLangevinIntegratorProxy::deserialize", property, text, "a known name");
    return found->first;
}

static void writeProtocol(SerializationNode& node, const AnnealedProtocol& protocol) {
    node.setIntProperty("stepsPerStage", protocol.getStepsPerStage());
    node.setDoubleProperty("stepSize", protocol.getStepSize());
    node.setDoubleProperty("friction", protocol.getFriction());
    node.setStringProperty("stageDynamics", findName(dynamics, protocol.getStageDynamics()));
    node.setStringProperty("middleJump", findName(middleJumps, protocol.getMiddleJump()));
    for (int i = 0; i < protocol.getNumParameters(); i++) {
        SerializationNode& parameter = node.createChildNode("Parameter");
        parameter.setStringProperty("name", protocol.getParameterName(i));
        for (const double value : protocol.getParameterValues(i))
            parameter.createChildNode("Stage").setDoubleProperty("value", value);
    }
}

static std::shared_ptr<AnnealedProtocol> readProtocol(const SerializationNode& node) {
    auto protocol = std::make_shared<AnnealedProtocol>(static_cast<int>(readInteger(node, "stepsPerStage")),
                                                       readNumber(node, "stepSize"));
    protocol->setFriction(readNumber(node, "friction"));
    protocol->setStageDynamics(readEnum(node, "stageDynamics", dynamics));
    protocol->setMiddleJump(readEnum(node, "middleJump", middleJumps));
    for (const SerializationNode& parameter : node.getChildren()) {
        std::vector<double> values;
        for (const SerializationNode& stage : parameter.getChildren())
            values.push_back(readNumber(stage, "value"));
        protocol->addParameter(parameter.getStringProperty("name"), values);
    }
    return protocol;
}

// Version 2 may have a protocol; version 3 says when proposals are prepared.
void FlowLangevinIntegratorProxy::serialize(const void* object, SerializationNode& node) const {
    const auto& integrator = *static_cast<const FlowLangevinIntegrator*>(object);
    node.setIntProperty("version", 3);
    node.setDoubleProperty("temperature", integrator.getTemperature());
    node.setDoubleProperty("friction", integrator.getFriction());
    node.setDoubleProperty("stepSize", integrator.getStepSize());
    node.setDoubleProperty("constraintTolerance", integrator.getConstraintTolerance());
    node.setIntProperty("randomSeed", integrator.getRandomNumberSeed());
    node.setIntProperty("integrationForceGroups", integrator.getIntegrationForceGroups());
    node.setIntProperty("jumpInterval", integrator.getJumpInterval());
    node.setIntProperty("trialsPerJump", integrator.getTrialsPerJump());
    node.setStringProperty("jumpKind", findName(kinds, integrator.getJumpKind()));
    node.setDoubleProperty("latentStepSize", integrator.getLatentStepSize());
    node.setStringProperty("acceptanceTest", findName(tests, integrator.getAcceptanceTest()));
    node.setStringProperty("proposalPreparation", findName(preparations, integrator.getProposalPreparation()));
    node.setStringProperty("jumpRandomSeed", std::to_string(integrator.getJumpRandomNumberSeed()));
    node.setBoolProperty("recordTrials", integrator.getRecordTrials());
    writeFlow(node, *integrator.getFlow());
    if (const auto protocol = integrator.getAnnealedProtocol())
        writeProtocol(node.createChildNode("AnnealedProtocol"), *protocol);
}

void* FlowLangevinIntegratorProxy::deserialize(const SerializationNode& node) const {
    checkVersion(node, "FlowLangevinIntegratorProxy::deserialize", 3);
    const auto integer = [&node](const char* name) { return static_cast<int>(readInteger(node, name)); };
    auto integrator = std::make_unique<FlowLangevinIntegrator>(
        readNumber(node, "temperature"), readNumber(node, "friction"), readNumber(node, "stepSize"), readFlow(node));
    integrator->setConstraintTolerance(readNumber(node, "constraintTolerance"));
    integrator->setRandomNumberSeed(integer("randomSeed"));
    integrator->setIntegrationForceGroups(integer("integrationForceGroups"));
    integrator->setJumpInterval(integer("jumpInterval"));
    integrator->setTrialsPerJump(integer("trialsPerJump"));
    integrator->setLatentStepSize(readNumber(node, "latentStepSize"));
    integrator->setJumpKind(readEnum(node, "jumpKind", kinds));
    integrator->setAcceptanceTest(readEnum(node, "acceptanceTest", tests));
    if (integer("version") >= 3)
        integrator->setProposalPreparation(readEnum(node, "proposalPreparation", preparations));
    integrator->setJumpRandomNumberSeed(readSeed(node, "jumpRandomSeed"));
    integrator->setRecordTrials(node.getBoolProperty("recordTrials"));
    for (const SerializationNode& child : node.getChildren())
        if (child.getName() == "AnnealedProtocol")
            integrator->setAnnealedProtocol(readProtocol(child));
    return integrator.release();
}
