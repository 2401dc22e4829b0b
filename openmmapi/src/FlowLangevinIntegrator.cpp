// SPDX-License-Identifier: MIT

#include "openmmflow/FlowLangevinIntegrator.h"
#include "Jumper.h"
#include "openmmflow/latent/Check.h"
#include <istream>

using namespace OpenMMFlow;
using namespace OpenMM;

static void requireFlow(const std::shared_ptr<Flow>& flow, const std::string& where) {
    require(flow != nullptr, where, "flow", "null", "a Flow");
    require(!flow->getAtoms().empty(), where, "number of the flow's atoms", 0,
            "at least 1: say which particles the flow describes");
}

// The arguments, checked before the base class gets them.
static double checkArgument(const char* name, double value, bool zeroAllowed = false) {
    require((value > 0 || (zeroAllowed && value == 0)) && std::isfinite(value),
            "FlowLangevinIntegrator::FlowLangevinIntegrator", name, value,
            zeroAllowed ? "at least 0 and finite" : "positive and finite");
    return value;
}

FlowLangevinIntegrator::FlowLangevinIntegrator(double temperature, double frictionCoeff, double stepSize,
                                               std::shared_ptr<Flow> newFlow)
    : LangevinMiddleIntegrator(checkArgument("temperature", temperature),
                               checkArgument("frictionCoeff", frictionCoeff, true),
                               checkArgument("stepSize", stepSize)),
      flow(std::move(newFlow)) {
    requireFlow(flow, "FlowLangevinIntegrator::FlowLangevinIntegrator");
}

FlowLangevinIntegrator::~FlowLangevinIntegrator() = default;

void FlowLangevinIntegrator::setFlow(std::shared_ptr<Flow> newFlow) {
    requireFlow(newFlow, "FlowLangevinIntegrator::setFlow");
    if (inContext) {
        checkTemperature(*newFlow);
        jumper->setFlow(newFlow);
    }
    flow = std::move(newFlow);
}

void FlowLangevinIntegrator::setJumpInterval(int steps) {
    require(steps >= 0, "FlowLangevinIntegrator::setJumpInterval", "steps", steps, "at least 0");
    jumpInterval = steps;
}

void FlowLangevinIntegrator::setTrialsPerJump(int trials) {
    require(trials >= 1, "FlowLangevinIntegrator::setTrialsPerJump", "trials", trials, "at least 1");
    trialsPerJump = trials;
}

// The step that was right for the other kinds may not be for PriorPreserving: either order of the two setters must
// work.
static void checkLatentStep(const char* where, JumpKind kind, double size) {
    require(size > 0 && std::isfinite(size), where, "latentStepSize", size, "positive and finite");
    require(kind != JumpKind::PriorPreserving || size <= 1, where, "latentStepSize", size,
            "at most 1 for PriorPreserving");
}

void FlowLangevinIntegrator::setJumpKind(JumpKind kind) {
    checkLatentStep("FlowLangevinIntegrator::setJumpKind", kind, latentStepSize);
    jumpKind = kind;
}

void FlowLangevinIntegrator::setLatentStepSize(double size) {
    checkLatentStep("FlowLangevinIntegrator::setLatentStepSize", jumpKind, size);
    latentStepSize = size;
}

void FlowLangevinIntegrator::setAcceptanceTest(AcceptanceTest test) {
    acceptanceTest = test;
}

void FlowLangevinIntegrator::setProposalPreparation(ProposalPreparation preparation) {
    proposalPreparation = preparation;
}

void FlowLangevinIntegrator::setJumpRandomNumberSeed(std::uint64_t seed) {
    jumpSeed = seed;
}

void FlowLangevinIntegrator::setAnnealedProtocol(std::shared_ptr<AnnealedProtocol> newProtocol) {
    std::shared_ptr<const AnnealedProtocol> copy;
    if (newProtocol != nullptr) {
        require(newProtocol->getNumParameters() > 0, "FlowLangevinIntegrator::setAnnealedProtocol",
                "number of the protocol's parameters", 0, "at least 1");
        copy = std::make_shared<const AnnealedProtocol>(*newProtocol);
    }
    if (inContext)
        jumper->setProtocol(copy, true);
    protocol = std::move(copy);
}

std::shared_ptr<AnnealedProtocol> FlowLangevinIntegrator::getAnnealedProtocol() const {
    return protocol == nullptr ? nullptr : std::make_shared<AnnealedProtocol>(*protocol);
}

void FlowLangevinIntegrator::checkTemperature(const Flow& other) const {
    require(other.getTemperature() == 0 || other.canScaleTemperature() ||
                std::abs(other.getTemperature() - getTemperature()) <= 1e-6 * getTemperature(),
            "FlowLangevinIntegrator", "temperature of the flow (K)", other.getTemperature(),
            "the integrator's, " + std::to_string(getTemperature()) +
                ", as the flow's log-determinant is not constant. To use the flow all the same (jumps stay exact, "
                "accepted less often), call flow.setTemperature(0)");
}

void FlowLangevinIntegrator::initialize(ContextImpl& contextImpl) {
    LangevinMiddleIntegrator::initialize(contextImpl);
    checkTemperature(*flow);
    jumper = std::make_unique<Jumper>(*this, contextImpl);
    jumper->setProtocol(protocol, false);
    inContext = true;
}

// The Context goes, and what has been counted and recorded stays.
void FlowLangevinIntegrator::cleanup() {
    inContext = false;
    if (jumper != nullptr)
        jumper->releaseContext();
    LangevinMiddleIntegrator::cleanup();
}

void FlowLangevinIntegrator::stateChanged(State::DataType changed) {
    LangevinMiddleIntegrator::stateChanged(changed);
    if (inContext)
        jumper->noteChange(changed);
}

void FlowLangevinIntegrator::step(int steps) {
    if (!inContext)
        throw OpenMMException("This Integrator is not bound to a context!");
    if (jumpInterval == 0) {
        LangevinMiddleIntegrator::step(steps);
        return;
    }
    while (steps > 0) {
        const int block = std::clamp(jumpInterval - jumper->stepsSinceJump, 1, steps);
        LangevinMiddleIntegrator::step(block);
        steps -= block;
        jumper->stepsSinceJump += block;
        if (jumper->stepsSinceJump >= jumpInterval) {
            jumper->stepsSinceJump = 0;
            jumper->jump();
        }
    }
}

int FlowLangevinIntegrator::jump() {
    if (!inContext)
        throw OpenMMException("This Integrator is not bound to a context!");
    return jumper->jump();
}

std::string FlowLangevinIntegrator::getJumpPlatform() const {
    return jumper == nullptr ? std::string() : jumper->getPlatformDescription();
}

JumpStatistics FlowLangevinIntegrator::getJumpStatistics() const {
    return jumper == nullptr ? JumpStatistics() : jumper->statistics;
}

void FlowLangevinIntegrator::resetJumpStatistics() {
    if (jumper != nullptr) {
        jumper->statistics = {};
        jumper->logAlphas.clear();
        jumper->nextLogAlpha = 0;
    }
}

std::vector<double> FlowLangevinIntegrator::getLogAlphaQuantiles(const std::vector<double>& probabilities) const {
    std::vector<double> sorted = jumper == nullptr ? std::vector<double>() : jumper->logAlphas;
    std::sort(sorted.begin(), sorted.end());
    std::vector<double> quantiles;
    for (const double p : probabilities) {
        require(p >= 0 && p <= 1, "FlowLangevinIntegrator::getLogAlphaQuantiles", "a probability", p, "in [0, 1]");
        if (sorted.empty()) {
            quantiles.push_back(NAN);
            continue;
        }
        const double position = p * static_cast<double>(sorted.size() - 1);
        const auto lower = static_cast<std::size_t>(position), upper = std::min(lower + 1, sorted.size() - 1);
        quantiles.push_back(std::lerp(sorted[lower], sorted[upper], position - static_cast<double>(lower)));
    }
    return quantiles;
}

const std::vector<JumpRecord>& FlowLangevinIntegrator::getJumpRecords() const {
    static const std::vector<JumpRecord> none;
    return jumper == nullptr ? none : jumper->records;
}

const std::vector<AnnealedRecord>& FlowLangevinIntegrator::getAnnealedRecords() const {
    static const std::vector<AnnealedRecord> none;
    return jumper == nullptr ? none : jumper->annealedRecords;
}

void FlowLangevinIntegrator::clearJumpRecords() {
    if (jumper != nullptr) {
        jumper->records.clear();
        jumper->annealedRecords.clear();
    }
}

// After the Context's own data, OpenMM's checkpoint has: magic, length (8 bytes), and a block with its own checksum.
static const std::string checkpointMagic = "OMMFLOW1";

void FlowLangevinIntegrator::createCheckpoint(std::ostream& stream) const {
    LangevinMiddleIntegrator::createCheckpoint(stream);
    const std::string bytes = jumper->createCheckpoint();
    const std::uint64_t length = bytes.size();
    stream << checkpointMagic;
    stream.write(reinterpret_cast<const char*>(&length), sizeof(length));
    stream << bytes;
}

void FlowLangevinIntegrator::loadCheckpoint(std::istream& stream) {
    LangevinMiddleIntegrator::loadCheckpoint(stream);
    const char* where = "FlowLangevinIntegrator::loadCheckpoint";
    std::string magic(checkpointMagic.size(), ' ');
    std::uint64_t length = 0;
    stream.read(magic.data(), static_cast<std::streamsize>(magic.size()));
    stream.read(reinterpret_cast<char*>(&length), sizeof(length));
    if (!stream || magic != checkpointMagic || length > 65536)
        throw OpenMMException(std::string(where) + ": the checkpoint is damaged, or not of a FlowLangevinIntegrator");
    std::string bytes(length, ' ');
    stream.read(bytes.data(), static_cast<std::streamsize>(length));
    if (!stream)
        throw OpenMMException(std::string(where) + ": the checkpoint is truncated");
    jumper->loadCheckpoint(bytes);
}
