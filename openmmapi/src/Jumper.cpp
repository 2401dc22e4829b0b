// SPDX-License-Identifier: MIT

#include "Jumper.h"
#include "StateGuard.h"
#include "openmmflow/FlowCheck.h"
#include "openmmflow/flows/FlowFile.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/ThreadGuard.h"
#include "openmmflow/samplers/LatentJump.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

const char* const who = "FlowLangevinIntegrator";
constexpr std::size_t numLogAlphas = 10000;

// FNV-1a, to tell whether two states are the same.
void addToHash(std::uint64_t& hash, const void* data, std::size_t size) {
    for (const auto* byte = static_cast<const unsigned char*>(data); size > 0; size--, byte++)
        hash = (hash ^ *byte) * 0x100000001b3ULL;
}

} // namespace

FlowLangevinIntegrator::Jumper::Jumper(const FlowLangevinIntegrator& owner, ContextImpl& context)
    : owner(owner), context(context), random(owner.getJumpRandomNumberSeed()), walk(owner, context, random),
      proposals(random.getSeed()) {
    setFlow(owner.getFlow());
    if (owner.getProposalPreparation() == ProposalPreparation::AheadWithEnergies &&
        ProposalEnergies::canServe(context, flow->getAtoms()))
        proposals.setEnergies(std::make_shared<ProposalEnergies>(owner, context, flow->getAtoms()));
}

void FlowLangevinIntegrator::Jumper::releaseContext() {
    walk.releaseKernels();
    moved.kernel = Kernel();
    proposals.stop();
}

// A Context says that Forces were changed in it by a change of the energy.
void FlowLangevinIntegrator::Jumper::noteChange(State::DataType changed) {
    if (changed == State::Energy)
        proposals.invalidateEnergies();
}

void FlowLangevinIntegrator::Jumper::setFlow(const std::shared_ptr<Flow>& newFlow) {
    const System& system = context.getSystem();
    checkFlow(*newFlow, system, who);
    auto newMetric = std::make_shared<const ConstraintMetric>(system, newFlow->getAtoms());
    if (flow == nullptr || newFlow->getAtoms() != flow->getAtoms())
        moved = makeMovedAtoms(context, newFlow->getAtoms());
    trainedFlow = newFlow;
    flow = newFlow;
    metric = std::move(newMetric);
    proposals.setFlow(flow, metric);
    proposals.discard();
}

// A flow that can follow the temperature of the integrator does (F9); others stay as they are.
void FlowLangevinIntegrator::Jumper::followTemperature() {
    const double temperature = owner.getTemperature();
    if (flow->getTemperature() == temperature || !trainedFlow->canScaleTemperature())
        return;
    flow = trainedFlow->atTemperature(temperature);
    proposals.setFlow(flow, metric);
}

void FlowLangevinIntegrator::Jumper::setProtocol(std::shared_ptr<const AnnealedProtocol> protocol, bool late) {
    walk.setProtocol(std::move(protocol), late);
}

int FlowLangevinIntegrator::Jumper::jump() {
    return translateErrors(who, [&] {
        const at::NoGradGuard noGrad;
        const ThreadGuard oneThread(1);
        followTemperature();
        proposals.discardIfFlowChanged();
        const bool annealed = walk.getProtocol() != nullptr;
        if (annealed)
            walk.checkStart();
        statistics.jumps++;
        return annealed ? jumpAnnealed() : jumpAtOnce();
    });
}

int FlowLangevinIntegrator::Jumper::jumpAtOnce() {
    StateGuard guard(context, atoms());
    const Outcome outcome = decideTrials(false);
    if (outcome.numAccepted > 0) {
        moveVelocities(outcome.x);
        guard.keepMove();
    }
    return outcome.numAccepted;
}

void FlowLangevinIntegrator::Jumper::moveTo(const Tensor& x) {
    atoms().scatter(context, x);
    context.computeVirtualSites();
}

// Trials from the present positions, one after the other. The Context is left with the positions of any of them.
FlowLangevinIntegrator::Jumper::Outcome FlowLangevinIntegrator::Jumper::decideTrials(bool inTheMiddle) {
    Trial current = measureCurrent();
    const bool independent = owner.getJumpKind() == JumpKind::Independence;
    const std::vector<Trial> ahead =
        independent ? takeProposals(current, owner.getTrialsPerJump()) : std::vector<Trial>();
    Outcome outcome;
    for (int number = 0; number < owner.getTrialsPerJump(); number++) {
        Trial trial = independent ? ahead[number] : proposeFrom(current);
        const double uniform = random.uniform();
        if (!rejectAhead(current, trial, uniform))
            measureEnergy(trial);
        if (decide(current, trial, number, uniform, inTheMiddle)) {
            current = trial;
            outcome = {outcome.numAccepted + 1, trial.x};
        }
    }
    return outcome;
}

// Velocities are integrated out: drawn at the start, and again after an accepted jump, while a rejected one leaves what
// was there. The kernel of positions alone is reversible by F7, and Maxwell's distribution is kept by either.
int FlowLangevinIntegrator::Jumper::jumpAnnealed() {
    StateGuard guard(context, atoms());
    AnnealedRecord record;
    record.step = context.getStepCount();
    record.logAlpha = -INFINITY;
    bool failed = false;
    try {
        if (walk.walk(record, [this] { return jumpInTheMiddle(); })) {
            record.uniform = random.uniform();
            record.accepted = accept(owner.getAcceptanceTest(), record.logAlpha, record.uniform);
        }
        if (record.accepted) {
            walk.drawVelocities();
            moveToHalfStep();
            guard.keepMove();
        }
    } catch (const OpenMMException&) {
        failed = true;
        record.accepted = false;
        record.logAlpha = -INFINITY;
    }
    statistics.trials++;
    statistics.accepted += record.accepted;
    statistics.failed += failed;
    statistics.stageSteps += record.stageSteps;
    statistics.stageAccepted += record.stageAccepted;
    const bool wentOut = static_cast<int>(record.stageWorks.size()) >= walk.getProtocol()->getNumStages() &&
                         std::isfinite(record.workOut + record.shadowOut);
    if (!failed && (record.jumped || !wentOut)) // else it was the middle that decided
        noteLogAlpha(record.logAlpha, false);
    if (owner.getRecordTrials())
        annealedRecords.push_back(record);
    return record.accepted;
}

// What the acceptance of the whole gains by the jump at the last stage; nothing where there is none.
std::optional<double> FlowLangevinIntegrator::Jumper::jumpInTheMiddle() {
    double gain = 0;
    if (walk.getProtocol()->getMiddleJump() == MiddleJump::Decided) {
        const Outcome outcome = decideTrials(true);
        if (outcome.numAccepted == 0)
            return std::nullopt;
        moveTo(outcome.x);
    } else {
        const Trial current = measureCurrent();
        Trial trial =
            owner.getJumpKind() == JumpKind::Independence ? takeProposals(current, 1)[0] : proposeFrom(current);
        measureEnergy(trial);
        JumpRecord record = makeRecord(current, trial, 0);
        record.inTheMiddle = true;
        record.accepted = std::isfinite(record.logAlpha);
        gain = record.logAlpha;
        noteMiddle(record);
        if (!record.accepted)
            return std::nullopt;
    }
    if (metric->getNumConstraints() > 0) {
        std::vector<Vec3> velocities;
        context.getVelocities(velocities);
        redrawMoved(velocities);
    }
    return gain;
}

// U/kT of the Context's present positions.
double FlowLangevinIntegrator::Jumper::computeReducedEnergy() {
    return context.calcForcesAndEnergy(false, true, owner.getIntegrationForceGroups()) /
           (gasConstant * owner.getTemperature());
}

FlowLangevinIntegrator::Jumper::Trial FlowLangevinIntegrator::Jumper::measureCurrent() {
    const Tensor x = atoms().gather(context).to(at::Device(flow->getDevice()));
    const FlowSample latent = flow->toLatent(x);
    const double metricNow = metric->halfLogDet(x).item<double>();
    return {x,
            latent.z,
            computeReducedEnergy() - metricNow,
            latent.logQ.item<double>(),
            latent.logDet.item<double>(),
            metricNow};
}

FlowLangevinIntegrator::Jumper::Trial FlowLangevinIntegrator::Jumper::proposeFrom(const Trial& current) {
    const Tensor z =
        proposeLatent(*flow->getPrior(), owner.getJumpKind(), owner.getLatentStepSize(), current.z, random);
    const FlowSample sample = flow->fromLatent(z);
    return {flow->place(sample.x, current.x),           z, 0, sample.logQ.item<double>(), sample.logDet.item<double>(),
            metric->halfLogDet(sample.x).item<double>()};
}

// The next proposals, all for the frame of the current state, which a jump does not change.
std::vector<FlowLangevinIntegrator::Jumper::Trial> FlowLangevinIntegrator::Jumper::takeProposals(const Trial& current,
                                                                                                 std::int64_t count) {
    const auto [samples, halfLogDets, energy, prepared] = proposals.take(count, owner.getProposalPreparation());
    statistics.preparedProposals += prepared ? count : 0;
    const Tensor x = flow->place(samples.x, current.x);
    const Tensor numbers = at::stack({samples.logQ, samples.logDet, halfLogDets}, 1).to(at::kCPU);
    const auto row = numbers.accessor<double, 2>();
    std::vector<Trial> trials;
    for (std::int64_t i = 0; i < count; i++)
        trials.push_back({x.narrow(0, i, 1), samples.z.narrow(0, i, 1), 0, row[i][0], row[i][1], row[i][2]});
    for (std::int64_t i = 0; energy.defined() && i < count; i++)
        trials[i].uAhead = energy[i].item<double>() / (gasConstant * owner.getTemperature()) - row[i][2];
    return trials;
}

// Whether a trial is rejected by an energy that was prepared, which then is its u. One that is not has to be measured:
// what is accepted is so by the Context's own energy.
bool FlowLangevinIntegrator::Jumper::rejectAhead(const Trial& current, Trial& trial, double uniform) {
    if (!std::isfinite(trial.uAhead))
        return false;
    trial.u = trial.uAhead;
    const double logAlpha = makeRecord(current, trial, 0).logAlpha;
    const bool rejected = std::isfinite(logAlpha) && !accept(owner.getAcceptanceTest(), logAlpha, uniform);
    statistics.rejectedAhead += rejected;
    return rejected;
}

// u = +inf where the trial has no finite energy. Leaves the trial's positions in the Context.
void FlowLangevinIntegrator::Jumper::measureEnergy(Trial& trial) {
    trial.u = INFINITY;
    if (!at::isfinite(trial.x).all().item<bool>() || !std::isfinite(trial.logQ))
        return;
    try {
        moveTo(trial.x);
        const double u = computeReducedEnergy() - trial.metric;
        if (std::isfinite(u))
            trial.u = u;
    } catch (const OpenMMException&) {
        statistics.failed++;
        trial.failed = true;
        return;
    }
}

JumpRecord FlowLangevinIntegrator::Jumper::makeRecord(const Trial& current, const Trial& trial, int number) const {
    JumpRecord record;
    record.step = context.getStepCount();
    record.trial = number;
    record.uOld = current.u;
    record.uNew = trial.u;
    record.logQOld = current.logQ;
    record.logQNew = trial.logQ;
    record.logDetOld = current.logDet;
    record.logDetNew = trial.logDet;
    record.metricOld = current.metric;
    record.metricNew = trial.metric;
    record.logAlpha =
        jumpLogAlpha(owner.getJumpKind(), current.u, trial.u, current.logQ, trial.logQ, current.logDet, trial.logDet);
    return record;
}

bool FlowLangevinIntegrator::Jumper::decide(const Trial& current, const Trial& trial, int number, double uniform,
                                            bool inTheMiddle) {
    JumpRecord record = makeRecord(current, trial, number);
    record.uniform = uniform;
    record.accepted = accept(owner.getAcceptanceTest(), record.logAlpha, record.uniform);
    if (inTheMiddle) {
        record.inTheMiddle = true;
        noteMiddle(record);
        return record.accepted;
    }
    statistics.trials++;
    statistics.accepted += record.accepted;
    noteLogAlpha(record.logAlpha, trial.failed);
    if (owner.getRecordTrials())
        records.push_back(record);
    return record.accepted;
}

void FlowLangevinIntegrator::Jumper::noteMiddle(const JumpRecord& record) {
    statistics.middleTrials++;
    statistics.middleAccepted += record.accepted;
    if (owner.getRecordTrials())
        records.push_back(record);
}

// For the quantiles, or the count of those that are not finite.
void FlowLangevinIntegrator::Jumper::noteLogAlpha(double logAlpha, bool failed) {
    if (!std::isfinite(logAlpha))
        statistics.nonFinite += failed ? 0 : 1;
    else if (logAlphas.size() < numLogAlphas)
        logAlphas.push_back(logAlpha);
    else
        logAlphas[nextLogAlpha++ % numLogAlphas] = logAlpha;
}

// Set velocities, those of the moved atoms drawn anew along their constraints, at the time of the positions.
void FlowLangevinIntegrator::Jumper::redrawMoved(std::vector<Vec3>& velocities) {
    const double kT = gasConstant * owner.getTemperature();
    for (const int atom : flow->getAtoms()) {
        const double sigma = std::sqrt(kT / context.getSystem().getParticleMass(atom));
        velocities[atom] = Vec3(random.normal(), random.normal(), random.normal()) * sigma;
    }
    context.setVelocities(velocities);
    context.applyVelocityConstraints(owner.getConstraintTolerance());
}

// Stored velocities are half a step behind the positions. What the jump leaves as it is, or draws anew where
// constraints turn with the atoms, are the velocities at the time of the positions: shift there with the old forces,
// and back with the new.
void FlowLangevinIntegrator::Jumper::moveVelocities(const Tensor& x) {
    std::vector<Vec3> velocities;
    atoms().restore(context);
    context.calcForcesAndEnergy(true, false, owner.getIntegrationForceGroups());
    context.computeShiftedVelocities(owner.getVelocityTimeOffset(), velocities);
    moveTo(x);
    if (metric->getNumConstraints() > 0)
        redrawMoved(velocities);
    else
        context.setVelocities(velocities);
    moveToHalfStep();
}

// From velocities at the time of the positions to those that the dynamics stores.
void FlowLangevinIntegrator::Jumper::moveToHalfStep() {
    std::vector<Vec3> velocities;
    context.calcForcesAndEnergy(true, false, owner.getIntegrationForceGroups());
    context.computeShiftedVelocities(-owner.getVelocityTimeOffset(), velocities);
    for (const Vec3& velocity : velocities)
        if (!std::isfinite(velocity.dot(velocity)))
            throw OpenMMException(std::string(who) + ": the forces of an accepted jump are not finite");
    context.setVelocities(velocities);
}

std::string FlowLangevinIntegrator::Jumper::hashContext(const std::vector<std::string>& parameters) const {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    std::vector<Vec3> vectors;
    context.getPositions(vectors);
    addToHash(hash, vectors.data(), vectors.size() * sizeof(Vec3));
    context.getVelocities(vectors);
    addToHash(hash, vectors.data(), vectors.size() * sizeof(Vec3));
    Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    addToHash(hash, box, sizeof(box));
    const double time = context.getTime();
    addToHash(hash, &time, sizeof(time));
    for (const auto& name : parameters) {
        const double value = context.getParameter(name);
        addToHash(hash, name.data(), name.size());
        addToHash(hash, &value, sizeof(value));
    }
    return std::to_string(hash);
}

std::string FlowLangevinIntegrator::Jumper::createCheckpoint() const {
    const Random::State state = random.getState();
    std::vector<std::string> parameters; // a Context that is reinitialized with another Force may have more
    for (const auto& [name, value] : context.getParameters())
        parameters.push_back(name);
    const nlohmann::json saved = {
        {"context", hashContext(parameters)},
        {"parameters", parameters},
        {"stepsSinceJump", stepsSinceJump},
        {"random", {state.seed, state.stream, state.position}},
        {"batch", proposals.getPlace().index},
        {"size", proposals.getPlace().size},
        {"used", proposals.getPlace().used},
        {"statistics",
         {statistics.jumps, statistics.trials, statistics.accepted, statistics.nonFinite, statistics.failed,
          statistics.middleTrials, statistics.middleAccepted, statistics.stageSteps, statistics.stageAccepted,
          statistics.preparedProposals, statistics.rejectedAhead}}};
    FlowFile file;
    file.metadata["jumps"] = saved.dump();
    return file.toBytes();
}

void FlowLangevinIntegrator::Jumper::loadCheckpoint(const std::string& bytes) {
    const char* where = "FlowLangevinIntegrator::loadCheckpoint";
    try {
        const auto saved = nlohmann::json::parse(FlowFile::fromBytes(bytes).metadata.at("jumps"));
        if (saved.at("context").get<std::string>() !=
            hashContext(saved.at("parameters").get<std::vector<std::string>>()))
            throw OpenMMException(std::string(where) +
                                  ": the checkpoint is damaged: positions, velocities, box, time or "
                                  "parameters are not those that were saved. Set them anew.");
        const auto numbers = saved.at("random").get<std::vector<std::uint64_t>>();
        auto counts = saved.at("statistics").get<std::vector<std::int64_t>>();
        counts.resize(std::max<std::size_t>(counts.size(), 11)); // fewer in earlier versions
        random.setState({numbers.at(0), numbers.at(1), numbers.at(2)});
        stepsSinceJump = saved.at("stepsSinceJump").get<int>();
        proposals.restore(random.getSeed(),
                          {saved.at("batch").get<std::uint64_t>(), saved.at("size").get<std::int64_t>(),
                           saved.at("used").get<std::int64_t>()});
        statistics = {counts[0], counts[1], counts[2], counts[3], counts[4], counts[5],
                      counts[6], counts[7], counts[8], counts[9], counts[10]};
    } catch (const std::out_of_range&) {
        throw OpenMMException(std::string(where) + ": the block of the jumps is not complete");
    } catch (const nlohmann::json::exception& error) {
        throw OpenMMException(std::string(where) + ": the block of the jumps is not valid: " + error.what());
    }
}
