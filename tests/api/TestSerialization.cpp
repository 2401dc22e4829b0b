// SPDX-License-Identifier: MIT

#include "api/ApiSystems.h"
#include "contracts/ExpectMessage.h"
#include "contracts/TestDevice.h"
#include "openmmflow/FlowForce.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include <ATen/ATen.h>
#include <openmm/serialization/XmlSerializer.h>
#include <regex>
#include <sstream>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

std::string integratorXml() {
    FlowLangevinIntegrator integrator(unitTemperature, 1.5, 0.003, makeWellFlow());
    integrator.setConstraintTolerance(1e-7);
    integrator.setRandomNumberSeed(9);
    integrator.setIntegrationForceGroups(5);
    integrator.setJumpInterval(33);
    integrator.setTrialsPerJump(4);
    integrator.setLatentStepSize(0.7);
    integrator.setJumpKind(JumpKind::PriorPreserving);
    integrator.setAcceptanceTest(AcceptanceTest::Barker);
    integrator.setProposalPreparation(ProposalPreparation::AheadWithEnergies);
    integrator.setJumpRandomNumberSeed(18446744073709551615ULL);
    integrator.setRecordTrials(true);
    const auto protocol = std::make_shared<AnnealedProtocol>(7, 0.0015);
    protocol->setFriction(2.5);
    protocol->setStageDynamics(StageDynamics::Metropolised);
    protocol->setMiddleJump(MiddleJump::Always);
    protocol->addParameter("charges", {1, 0.3, 0});
    protocol->addParameter("<\"radii\">", {1, 1, 0.25});
    integrator.setAnnealedProtocol(protocol);
    std::stringstream stream;
    XmlSerializer::serialize<Integrator>(&integrator, "Integrator", stream);
    return stream.str();
}

std::unique_ptr<Integrator> readIntegrator(const std::string& xml) {
    std::stringstream stream(xml);
    return std::unique_ptr<Integrator>(XmlSerializer::deserialize<Integrator>(stream));
}

} // namespace

TEST(Serialization, IntegratorKeepsEverything) {
    const auto copy = readIntegrator(integratorXml());
    const auto& integrator = dynamic_cast<const FlowLangevinIntegrator&>(*copy);
    EXPECT_EQ(integrator.getTemperature(), unitTemperature);
    EXPECT_EQ(integrator.getFriction(), 1.5);
    EXPECT_EQ(integrator.getStepSize(), 0.003);
    EXPECT_EQ(integrator.getConstraintTolerance(), 1e-7);
    EXPECT_EQ(integrator.getRandomNumberSeed(), 9);
    EXPECT_EQ(integrator.getIntegrationForceGroups(), 5);
    EXPECT_EQ(integrator.getJumpInterval(), 33);
    EXPECT_EQ(integrator.getTrialsPerJump(), 4);
    EXPECT_EQ(integrator.getLatentStepSize(), 0.7);
    EXPECT_EQ(integrator.getJumpKind(), JumpKind::PriorPreserving);
    EXPECT_EQ(integrator.getAcceptanceTest(), AcceptanceTest::Barker);
    EXPECT_EQ(integrator.getProposalPreparation(), ProposalPreparation::AheadWithEnergies);
    EXPECT_EQ(integrator.getJumpRandomNumberSeed(), 18446744073709551615ULL);
    EXPECT_TRUE(integrator.getRecordTrials());
    EXPECT_EQ(integrator.getFlow()->serialize(), makeWellFlow()->serialize());
    const auto protocol = integrator.getAnnealedProtocol();
    ASSERT_NE(protocol, nullptr);
    EXPECT_EQ(protocol->getStepsPerStage(), 7);
    EXPECT_EQ(protocol->getStepSize(), 0.0015);
    EXPECT_EQ(protocol->getFriction(), 2.5);
    EXPECT_EQ(protocol->getStageDynamics(), StageDynamics::Metropolised);
    EXPECT_EQ(protocol->getMiddleJump(), MiddleJump::Always);
    ASSERT_EQ(protocol->getNumParameters(), 2);
    EXPECT_EQ(protocol->getParameterName(1), "<\"radii\">");
    EXPECT_EQ(protocol->getParameterValues(0), (std::vector<double>{1, 0.3, 0}));
    EXPECT_EQ(protocol->getParameterValues(1), (std::vector<double>{1, 1, 0.25}));
}

// Version 1 had no protocol, and neither it nor version 2 prepared proposals.
TEST(Serialization, ReadsIntegratorsOfVersion1) {
    const std::string xml =
        std::regex_replace(std::regex_replace(integratorXml(), std::regex(" version=\"3\""), " version=\"1\""),
                           std::regex(" proposalPreparation=\"[^\"]*\""), "");
    const std::size_t start = xml.find("<AnnealedProtocol"), end = xml.find("</AnnealedProtocol>");
    ASSERT_NE(start, std::string::npos);
    const auto copy =
        readIntegrator(xml.substr(0, start) + xml.substr(end + std::string("</AnnealedProtocol>").size()));
    const auto& integrator = dynamic_cast<const FlowLangevinIntegrator&>(*copy);
    EXPECT_EQ(integrator.getJumpInterval(), 33);
    EXPECT_EQ(integrator.getAnnealedProtocol(), nullptr);
    EXPECT_EQ(integrator.getProposalPreparation(), ProposalPreparation::WhenNeeded);
}

TEST(Serialization, SystemKeepsItsFlowForce) {
    auto system = makeDoubleWell(0.3);
    auto* force = new FlowForce(makeWellFlow(), 310.0);
    force->setName("density");
    force->setForceGroup(4);
    force->setScaleParameter("lambda");
    force->setDefaultScale(0.25);
    system->addForce(force);
    const std::unique_ptr<System> copy(XmlSerializer::clone(*system));
    const auto& read = dynamic_cast<const FlowForce&>(copy->getForce(1));
    EXPECT_EQ(read.getName(), "density");
    EXPECT_EQ(read.getForceGroup(), 4);
    EXPECT_EQ(read.getTemperature(), 310.0);
    EXPECT_EQ(read.getScaleParameter(), "lambda");
    EXPECT_EQ(read.getDefaultScale(), 0.25);
    EXPECT_EQ(read.getFlow()->serialize(), makeWellFlow()->serialize());
}

// A file says nothing of a device.
TEST(Serialization, FlowsOnADeviceAreWrittenAsOthers) {
    auto system = makeDoubleWell(0.3);
    system->addForce(new FlowForce(makeWellFlow()->to(getTestDevice()), 310.0));
    const std::unique_ptr<System> copy(XmlSerializer::clone(*system));
    const auto& read = dynamic_cast<const FlowForce&>(copy->getForce(1));
    EXPECT_EQ(read.getFlow()->serialize(), makeWellFlow()->serialize());
    EXPECT_EQ(read.getFlow()->getDevice(), "cpu");
}

TEST(Serialization, RefusesDamagedXml) {
    const std::string xml = integratorXml();
    const auto changed = [&](const std::string& pattern, const std::string& replacement) {
        const std::string damaged = std::regex_replace(xml, std::regex(pattern), replacement);
        EXPECT_NE(damaged, xml) << pattern;
        return [damaged] { (void)readIntegrator(damaged); };
    };
    expectMessage(changed(" friction=\"[^\"]*\"", ""), "friction");
    expectMessage(changed(" friction=\"[^\"]*\"", " friction=\"abc\""), "friction is \"abc\", but must be a number");
    expectMessage(changed(" friction=\"[^\"]*\"", " friction=\"1.5x\""), "but must be a number");
    expectMessage(changed(" friction=\"[^\"]*\"", " friction=\"nan\""), "friction is nan, but must be finite");
    expectMessage(changed(" temperature=\"[^\"]*\"", " temperature=\"-3\""), "temperature is -3");
    expectMessage(changed(" jumpInterval=\"[^\"]*\"", " jumpInterval=\"-1\""), "steps is -1");
    expectMessage(changed(" jumpKind=\"[^\"]*\"", " jumpKind=\"Hop\""), "jumpKind is Hop");
    expectMessage(changed(" proposalPreparation=\"[^\"]*\"", " proposalPreparation=\"Soon\""),
                  "proposalPreparation is Soon");
    expectMessage(changed(" version=\"3\"", " version=\"99\""), "version is 99");
    expectMessage(changed(" stageDynamics=\"[^\"]*\"", " stageDynamics=\"Brownian\""), "stageDynamics is Brownian");
    expectMessage(changed(" stepsPerStage=\"[^\"]*\"", " stepsPerStage=\"-7\""), "steps is -7");
    expectMessage(changed(" value=\"0?\\.3[^\"]*\"", " value=\"x\""), "value is \"x\", but must be a number");
    expectMessage(changed(" flow=\"....", " flow=\"!!!!"), "the flow in the XML is damaged");
    expectMessage(changed(" flow=\"([^\"]{200})..", " flow=\"$1ZZ"), "checksum");
    expectMessage(changed(" flow=\"[^\"]*\"", ""), "'flow'");
}
