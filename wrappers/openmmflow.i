// SPDX-License-Identifier: MIT
%module(package="openmmflow", threads=1, naturalvar=1) openmmflow

%include <stdint.i>
%include <std_string.i>
%include <std_shared_ptr.i>
%include <std_vector.i>
%import(module="openmm") "OpenMMSwigHeaders.i"

%pythonbegin %{
# SPDX-License-Identifier: MIT
import enum
import torch  # before the extension, which uses its libraries
import openmm
%}

%{
#include "PythonFunction.h"
#include "PythonTransform.h"
#include "openmmflow/AnnealedProtocol.h"
#include "openmmflow/FlowCheck.h"
#include "openmmflow/FlowForce.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/energies/AugmentedPotential.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/energies/ContextPotential.h"
#include "openmmflow/energies/SelectedColumns.h"
#include "openmmflow/energies/systems/DimerInBath.h"
#include "openmmflow/energies/systems/GaussianMixture.h"
#include "openmmflow/energies/systems/IsingTorus.h"
#include "openmmflow/energies/systems/LatticePhi4.h"
#include "openmmflow/energies/systems/LennardJonesCluster.h"
#include "openmmflow/energies/systems/ManyWell.h"
#include "openmmflow/estimators/ChainEstimates.h"
#include "openmmflow/estimators/EffectiveSampleSize.h"
#include "openmmflow/estimators/FlowFreeEnergy.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include "openmmflow/estimators/TimeSeries.h"
#include "openmmflow/flows/Architectures.h"
#include "openmmflow/flows/Conditioned.h"
#include "openmmflow/flows/OnColumns.h"
#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/EckartCoordinates.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/FlowPrior.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/MaskedAutoregressive.h"
#include "openmmflow/flows/MixedCoordinates.h"
#include "openmmflow/flows/ParticleOrdering.h"
#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "openmmflow/flows/RigidBodies.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/flows/LatticeVelocityField.h"
#include "openmmflow/flows/SmoothCoupling.h"
#include "openmmflow/flows/Whitening.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/samplers/LambdaSpacing.h"
#include "openmmflow/samplers/LatentJump.h"
#include "openmmflow/samplers/LatentKernel.h"
#include "openmmflow/samplers/ParameterPath.h"
#include "openmmflow/samplers/ReplicaExchange.h"
#include "openmmflow/samplers/SequentialSampler.h"
#include "openmmflow/samplers/StochasticFlow.h"
#include "openmmflow/samplers/TransformedPotential.h"
#include "openmmflow/training/AlphaDivergenceLoss.h"
#include "openmmflow/training/AnnealedFlowTransport.h"
#include "openmmflow/training/FlowMatchingLoss.h"
#include "openmmflow/training/LatentAcceptanceLoss.h"
#include "openmmflow/training/PathGradientLoss.h"
#include "openmmflow/training/ReactionCoordinateEntropyLoss.h"
#include "openmmflow/training/ReweightedForwardKLLoss.h"
#include "openmmflow/training/SymmetricAcceptanceLoss.h"
#include "openmmflow/training/Trainer.h"
#include "openmmflow/training/WorkLoss.h"
#include <OpenMM.h>
#include <OpenMMAmoeba.h>
#include <OpenMMDrude.h>
#include <openmm/RPMDIntegrator.h>
#include <openmm/RPMDMonteCarloBarostat.h>
using namespace OpenMM;
%}

#define OPENMMFLOW_EXPORT
%feature("flatnested");

// Keyword arguments where a default has no Python form; SWIG does the other functions.
%define %keywords(FUNCTION)
%feature("kwargs") FUNCTION;
%feature("compactdefaultargs") FUNCTION;
%feature("autodoc", "0") FUNCTION;
%enddef
%keywords(OpenMMFlow::AdditiveCoupling::AdditiveCoupling)
%keywords(OpenMMFlow::AffineCoupling::AffineCoupling)
%keywords(OpenMMFlow::makeNICER)
%keywords(OpenMMFlow::makeRealNVP)
%keywords(OpenMMFlow::Flow::Flow)
%keywords(OpenMMFlow::InternalCoordinates::fromSystem)
%keywords(OpenMMFlow::MaximumLikelihoodLoss::addData)
%keywords(OpenMMFlow::Whitening::fromData)
%keywords(OpenMMFlow::FlowMatchingLoss::addData)
%keywords(OpenMMFlow::ReducedPotential::evaluate)
%keywords(OpenMMFlow::ContextPotential::evaluate)
%keywords(OpenMMFlow::SelectedColumns::evaluate)
%keywords(OpenMMFlow::AugmentedPotential::evaluate)
%keywords(OpenMMFlow::TransformedPotential::evaluate)
%keywords(OpenMMFlow::TransformedPotential::TransformedPotential)
%keywords(OpenMMFlow::FlowPath::FlowPath)
%keywords(OpenMMFlow::TemperaturePath::TemperaturePath)
%keywords(OpenMMFlow::ParameterPath::ParameterPath)
%keywords(OpenMMFlow::AnnealedPath::evaluate)
%keywords(OpenMMFlow::AnnealedPath::atLambda)
%keywords(OpenMMFlow::StochasticFlow::addMoves)
%keywords(OpenMMFlow::conditionalEss)
%keywords(OpenMMFlow::nextLambda)
%include "typemaps.i"

// Enums
%rename("$ignore", %$isenumitem) "";
%int_enum(JumpKind, Independence PriorPreserving RandomWalk)
%int_enum(AcceptanceTest, Metropolis Barker)
%int_enum(ProposalPreparation, WhenNeeded Ahead AheadWithEnergies)
%int_enum(StageDynamics, Langevin LangevinShadowWork Metropolised)
%int_enum(MiddleJump, Decided Always)
%int_enum(Gradient, Omit Compute)
%int_enum(Activation, SiLU ReLU Tanh)
%int_enum(AutoregressiveMap, Affine Spline)
%int_enum(ScalingLayer, Learned Exponential)
%int_enum(OdeMethod, RungeKutta4 DormandPrince)
%int_enum(FlowMatchingCoupling, Independent OptimalTransport)
%int_enum(TorsionRange, Circle Turn Positive Negative)

// Classes held by shared_ptr
%shared_class(Prior)
%shared_class(GaussianPrior)
%shared_class(UniformTorusPrior)
%shared_class(ProductPrior)
%shared_class(MixturePrior)
%shared_class(FlowPrior)
%shared_class(Transform)
%shared_class(Sequence)
%shared_class(Inverse)
%shared_class(Permutation)
%shared_class(Scaling)
%shared_class(LearnedScaling)
%shared_class(ExpScaling)
%shared_class(CircularShift)
%shared_class(AdditiveCoupling)
%shared_class(AffineCoupling)
%shared_class(SplineCoupling)
%shared_class(SmoothCoupling)
%shared_class(MaskedAutoregressive)
%shared_class(VelocityField)
%shared_class(NetworkVelocityField)
%shared_class(LatticeVelocityField)
%shared_class(ContinuousFlow)
%shared_class(InternalCoordinates)
%shared_class(EckartCoordinates)
%shared_class(MixedCoordinates)
%shared_class(Conditioned)
%shared_class(OnColumns)
%shared_class(ParticleOrdering)
%shared_class(RigidBodies)
%shared_class(Whitening)
%shared_class(PythonTransform)
%shared_class(Flow)
%shared_class(AnnealedProtocol)
%shared_class(ReducedPotential)
%shared_class(ContextPotential)
%shared_class(SelectedColumns)
%shared_class(AugmentedPotential)
%shared_class(TransformedPotential)
%shared_class(AnnealedPath)
%shared_class(GeometricPath)
%shared_class(PotentialPath)
%shared_class(FlowPath)
%shared_class(TemperaturePath)
%shared_class(ParameterPath)
%shared_class(AnnealedKernel)
%shared_class(SteppedKernel)
%shared_class(KernelSequence)
%shared_class(RandomWalkKernel)
%shared_class(LangevinKernel)
%shared_class(HamiltonianKernel)
%shared_class(GeneralizedHamiltonianKernel)
%shared_class(LatentKernel)
%shared_class(SequentialSampler)
%shared_class(Loss)
%shared_class(MaximumLikelihoodLoss)
%shared_class(ReverseKLLoss)
%shared_class(LatentAcceptanceLoss)
%shared_class(SymmetricAcceptanceLoss)
%shared_class(ReactionCoordinateEntropyLoss)
%shared_class(ReweightedForwardKLLoss)
%shared_class(AlphaDivergenceLoss)
%shared_class(FlowMatchingLoss)
%shared_class(PathGradientLoss)
%shared_class(WorkLoss)
%template() std::vector<std::shared_ptr<OpenMMFlow::Prior>>;
%template() std::vector<std::shared_ptr<OpenMMFlow::Transform>>;
%template() std::vector<std::shared_ptr<OpenMMFlow::AnnealedKernel>>;
%returns_dynamic(Prior, OpenMMFlow::GaussianPrior, OpenMMFlow::UniformTorusPrior, OpenMMFlow::ProductPrior,
                 OpenMMFlow::MixturePrior, OpenMMFlow::FlowPrior, OpenMMFlow::Prior)
%returns_dynamic(Transform, OpenMMFlow::Sequence, OpenMMFlow::Inverse, OpenMMFlow::Permutation, OpenMMFlow::Scaling,
                 OpenMMFlow::CircularShift, OpenMMFlow::AffineCoupling, OpenMMFlow::SplineCoupling,
                 OpenMMFlow::AdditiveCoupling, OpenMMFlow::LearnedScaling, OpenMMFlow::ExpScaling,
                 OpenMMFlow::SmoothCoupling, OpenMMFlow::MaskedAutoregressive, OpenMMFlow::ContinuousFlow,
                 OpenMMFlow::Conditioned, OpenMMFlow::OnColumns,
                 OpenMMFlow::InternalCoordinates, OpenMMFlow::EckartCoordinates, OpenMMFlow::MixedCoordinates,
                 OpenMMFlow::ParticleOrdering, OpenMMFlow::RigidBodies, OpenMMFlow::Whitening, OpenMMFlow::PythonTransform,
                 OpenMMFlow::Transform)
%returns_dynamic(ReducedPotential, OpenMMFlow::SelectedColumns, OpenMMFlow::ContextPotential,
                 OpenMMFlow::AugmentedPotential, OpenMMFlow::TransformedPotential, OpenMMFlow::ReducedPotential)

// Options of a class, as a class of their own
%define %options(CLASS)
%rename(CLASS ## Options) OpenMMFlow::CLASS::Options;
%feature("python:nondynamic") OpenMMFlow::CLASS::Options;
%enddef
%options(Conditioner)
%options(SplineCoupling)
%options(SmoothCoupling)
%options(MaskedAutoregressive)
%options(NetworkVelocityField)
%options(LatticeVelocityField)
%options(ContinuousFlow)
%feature("python:nondynamic") OpenMMFlow::OdeOptions;
%options(ContextPotential)
%options(LatentJump)
%options(MaximumLikelihoodLoss)
%options(ReverseKLLoss)
%options(LatentAcceptanceLoss)
%options(SymmetricAcceptanceLoss)
%options(ReactionCoordinateEntropyLoss)
%options(ReweightedForwardKLLoss)
%options(AlphaDivergenceLoss)
%options(RandomWalkKernel)
%options(LangevinKernel)
%options(HamiltonianKernel)
%options(GeneralizedHamiltonianKernel)
%options(LatentKernel)
%options(SequentialSampler)
%options(ReplicaExchange)
%options(AnnealedFlowTransport)
%options(DoubleWell)
%options(ManyWell)
%options(LennardJonesCluster)
%options(DimerInBath)
%options(LatticePhi4)
%options(IsingTorus)
%rename(DoubleWellTruth) OpenMMFlow::DoubleWell::Truth;
%rename(DimerInBathBareTruth) OpenMMFlow::DimerInBath::BareTruth;
%options(FlowMatchingLoss)
%options(WorkLoss)
%options(Trainer)
%feature("python:nondynamic") OpenMMFlow::NICEROptions;
%feature("python:nondynamic") OpenMMFlow::RealNVPOptions;
%rename(ContextPotentialCounts) OpenMMFlow::ContextPotential::Counts;
%rename(RandomState) OpenMMFlow::Random::State;
%ignore OpenMMFlow::PulledResult;
%ignore *::inverseWithPullBack;
%ignore OpenMMFlow::Conditioner::getOptions;
%ignore OpenMMFlow::Conditioner::getWeights;
%ignore OpenMMFlow::Conditioner::getBiases;
%ignore OpenMMFlow::Conditioner::isPerceptron;
%ignore OpenMMFlow::Conditioner::getOpen;
%ignore OpenMMFlow::Conditioner::getCircular;
%ignore OpenMMFlow::VelocityField::PullBack;
%ignore OpenMMFlow::VelocityField::Derivatives;
%ignore OpenMMFlow::VelocityField::create;
%ignore *::pullBack;
%ignore *::withParameters;
%ignore *::countIntermediates;

%rename(__call__) *::operator();
%ignore OpenMMFlow::InternalCoordinates::Chart;
%ignore OpenMMFlow::InternalCoordinates::ChartTables;
%ignore getConstants;
%ignore OpenMMFlow::ConstraintMetric::Blocks;
%rename(lambda_) OpenMMFlow::PathState::lambda;
%ignore OpenMMFlow::PathState::kept;
%ignore OpenMMFlow::choose;
%ignore OpenMMFlow::StepSizes;
%ignore OpenMMFlow::requireLambdas;
%ignore OpenMMFlow::SequentialSampler::Observer;
%ignore OpenMMFlow::SequentialSampler::runObserved;
%ignore OpenMMFlow::HeldDistance;
%ignore OpenMMFlow::Transform::getHeldDistances;
%ignore OpenMMFlow::Sequence::getHeldDistances;
%ignore OpenMMFlow::InternalCoordinates::getHeldDistances;
%ignore OpenMMFlow::RigidBodies::getHeldDistances;
%ignore OpenMMFlow::AnnealedKernel::getState;
%ignore OpenMMFlow::AnnealedKernel::setState;
%ignore OpenMMFlow::SteppedKernel::getState;
%ignore OpenMMFlow::SteppedKernel::setState;
%ignore OpenMMFlow::KernelSequence::getState;
%ignore OpenMMFlow::KernelSequence::setState;
%ignore OpenMMFlow::Loss::getState;
%ignore OpenMMFlow::Loss::setState;
%ignore OpenMMFlow::AlphaDivergenceLoss::getState;
%ignore OpenMMFlow::AlphaDivergenceLoss::setState;
%ignore OpenMMFlow::accept;
%ignore OpenMMFlow::Prior::getBuffers;
%ignore OpenMMFlow::ProductPrior::getBuffers;
%ignore OpenMMFlow::MixturePrior::getBuffers;
%ignore OpenMMFlow::FlowPrior::getBuffers;

// The caller owns a new System.
%ignore OpenMMFlow::AnalyticSystem::createSystem;
%ignore OpenMMFlow::DoubleWell::createSystem;
%ignore OpenMMFlow::ManyWell::createSystem;
%ignore OpenMMFlow::GaussianMixture::createSystem;
%ignore OpenMMFlow::LennardJonesCluster::createSystem;
%ignore OpenMMFlow::DimerInBath::createSystem;
%ignore OpenMMFlow::LatticePhi4::createSystem;
%ignore OpenMMFlow::IsingTorus::createSystem;
%rename(createSystem) OpenMMFlow::AnalyticSystem::releaseSystem;
%newobject OpenMMFlow::AnalyticSystem::releaseSystem;
%extend OpenMMFlow::AnalyticSystem {
    OpenMM::System* releaseSystem() const { return $self->createSystem().release(); }
}

// Units, as OpenMM's own getters have them
%returns_quantity(OpenMMFlow::FlowForce::getTemperature, kelvin)
%returns_quantity(OpenMMFlow::ContextPotential::getTemperature, kelvin)
%returns_quantity(OpenMMFlow::AnnealedProtocol::getStepSize, picosecond)
%feature("pythonappend") OpenMMFlow::AnnealedProtocol::getFriction %{ val = val / openmm.unit.picosecond %}

%returns_bytes(OpenMMFlow::Flow::serialize)

// Python objects as they are
%typemap(in) _object* { $1 = $input; }
%typemap(typecheck, precedence=SWIG_TYPECHECK_POINTER) _object* { $1 = 1; }
%typemap(out) _object* { $result = $1; }

%define %returns_records(RECORD)
%typemap(out) const std::vector<OpenMMFlow::RECORD>& {
    $result = PyList_New(static_cast<Py_ssize_t>($1->size()));
    for (size_t i = 0; i < $1->size(); i++)
        PyList_SET_ITEM($result, static_cast<Py_ssize_t>(i),
                        SWIG_NewPointerObj(new OpenMMFlow::RECORD((*$1)[i]),
                                           $descriptor(OpenMMFlow::RECORD*), SWIG_POINTER_OWN));
}
%enddef
%returns_records(JumpRecord)
%returns_records(AnnealedRecord)

// What OpenMM returns as a Force or an Integrator, as what it is. openmmflow/_extend.py calls them where OpenMM returns one.
%define %castable(CLASS, BASE)
%extend OpenMMFlow::CLASS {
    static bool isinstance(const OpenMM::BASE& object) {
        return dynamic_cast<const OpenMMFlow::CLASS*>(&object) != nullptr;
    }
    static OpenMMFlow::CLASS& cast(OpenMM::BASE& object) {
        auto* found = dynamic_cast<OpenMMFlow::CLASS*>(&object);
        if (found == nullptr)
            throw OpenMM::OpenMMException(#CLASS "::cast: the object is of another class");
        return *found;
    }
}
%enddef
%castable(FlowForce, Force)
%castable(FlowLangevinIntegrator, Integrator)

%include "openmmflow/latent/Random.h"
%include "openmmflow/latent/Prior.h"
%include "openmmflow/flows/Transform.h"
%include "openmmflow/flows/Sequence.h"
%include "openmmflow/flows/Elementary.h"
%include "openmmflow/latent/Lattice.h"
%include "openmmflow/flows/Conditioner.h"
%ignore OpenMMFlow::Split;
%include "openmmflow/flows/Coupling.h"
%include "openmmflow/flows/SmoothCoupling.h"
%include "openmmflow/flows/MaskedAutoregressive.h"
%include "openmmflow/flows/Architectures.h"
%include "openmmflow/flows/VelocityField.h"
%include "openmmflow/flows/NetworkVelocityField.h"
%include "openmmflow/flows/LatticeVelocityField.h"
%include "openmmflow/flows/ContinuousFlow.h"
%include "openmmflow/flows/RationalQuadraticSpline.h"
%template() std::vector<OpenMMFlow::ZMatrixRow>;
%include "openmmflow/flows/ZMatrixRow.h"
%include "openmmflow/flows/InternalCoordinates.h"
%include "openmmflow/flows/EckartCoordinates.h"
%include "openmmflow/flows/MixedCoordinates.h"
%include "openmmflow/flows/Conditioned.h"
%include "openmmflow/flows/OnColumns.h"
%include "openmmflow/flows/ParticleOrdering.h"
%include "openmmflow/flows/RigidBodies.h"
%include "openmmflow/flows/Whitening.h"
%include "openmmflow/flows/Flow.h"
%include "openmmflow/flows/FlowPrior.h"
%include "PythonTransform.h"
%include "openmmflow/energies/ReducedPotential.h"
%include "openmmflow/energies/ContextPotential.h"
%include "openmmflow/energies/ConstraintMetric.h"
%include "openmmflow/energies/SelectedColumns.h"
%include "openmmflow/energies/AugmentedPotential.h"
%include "openmmflow/energies/systems/AnalyticSystem.h"
%include "openmmflow/energies/systems/DoubleWell.h"
%include "openmmflow/energies/systems/ManyWell.h"
%include "openmmflow/energies/systems/GaussianMixture.h"
%include "openmmflow/energies/systems/LennardJonesCluster.h"
%include "openmmflow/energies/systems/DimerInBath.h"
%include "openmmflow/energies/systems/LatticePhi4.h"
%include "openmmflow/energies/systems/IsingTorus.h"
%include "openmmflow/samplers/Acceptance.h"
%include "openmmflow/samplers/LatentJump.h"
%include "openmmflow/samplers/AnnealedPath.h"
%include "openmmflow/samplers/ParameterPath.h"
%include "openmmflow/samplers/AnnealedKernel.h"
%include "openmmflow/samplers/HamiltonianKernel.h"
%include "openmmflow/samplers/LatentKernel.h"
%include "openmmflow/samplers/AnnealedSampler.h"
%include "openmmflow/samplers/LambdaSpacing.h"
%include "openmmflow/samplers/SequentialSampler.h"
%include "openmmflow/samplers/ReplicaExchange.h"
%include "openmmflow/samplers/StochasticFlow.h"
%include "openmmflow/samplers/TransformedPotential.h"
%include "openmmflow/estimators/FreeEnergy.h"
%include "openmmflow/estimators/EffectiveSampleSize.h"
%include "openmmflow/estimators/FlowFreeEnergy.h"
%include "openmmflow/estimators/TimeSeries.h"
%include "openmmflow/estimators/ChainEstimates.h"
%include "openmmflow/training/Loss.h"
%include "openmmflow/training/LatentAcceptanceLoss.h"
%include "openmmflow/training/SymmetricAcceptanceLoss.h"
%include "openmmflow/training/ReactionCoordinateEntropyLoss.h"
%include "openmmflow/training/ReweightedForwardKLLoss.h"
%include "openmmflow/training/PrioritisedReplayBuffer.h"
%include "openmmflow/training/AlphaDivergenceLoss.h"
%include "openmmflow/training/AnnealedFlowTransport.h"
%include "openmmflow/training/FlowMatchingLoss.h"
%include "openmmflow/training/PathGradientLoss.h"
%include "openmmflow/training/WorkLoss.h"
%include "openmmflow/training/Trainer.h"
%include "openmmflow/FlowCheck.h"
%include "openmmflow/FlowForce.h"
%include "openmmflow/AnnealedProtocol.h"
%include "openmmflow/FlowLangevinIntegrator.h"

%pythoncode %{
__all__ = [name for name, value in globals().items()
           if getattr(value, "__module__", None) == __name__ and not name.startswith(("_", "Swig"))]
%}
