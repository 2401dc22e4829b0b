#ifndef OPENMMFLOW_FLOWS_MIXEDCOORDINATES_H_
#define OPENMMFLOW_FLOWS_MIXEDCOORDINATES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/EckartCoordinates.h"
#include "openmmflow/flows/InternalCoordinates.h"

namespace OpenMMFlow {

/**
 * Cartesian coordinates for some atoms of a Z-matrix, such as a protein's backbone, whose bends and twists far along
 * the chain would otherwise move everything behind them. Stands before an InternalCoordinates chart of all atoms:
 *
 *     forward:  z -> xi: the columns of the chosen atoms hold y of EckartCoordinates in z, and their bonds, angles and
 *               torsions in xi; all other columns stay.  logDet = log|det dxi/dy| = logDet(y -> x) + logDet(x -> xi)
 *     inverse:  the same backwards
 *
 * Outside the domain of either chart forward gives logDet = NaN and a row of NaN, inverse -inf and a row of 0.
 * Gradients are first order, as those of InternalCoordinates. Source: Noe et al., Science 365, eaaw1147 (2019),
 * supplement.
 */
class OPENMMFLOW_EXPORT MixedCoordinates : public Transform {
public:
    /**
     * @param chart      of all atoms; the transform that follows
     * @param atoms      the ones to keep Cartesian, positions in the list of charted atoms: with the chart's frame, and
     * with whatever their rows refer to; bonds among them are free
     * @param reference  nm, of those atoms in that order, [atoms, 3]
     */
    MixedCoordinates(const std::shared_ptr<InternalCoordinates>& chart, std::vector<int> atoms,
                     const at::Tensor& reference);
    /** The transform that getArchitecture() described. */
    static std::shared_ptr<MixedCoordinates> fromArchitecture(const nlohmann::json& architecture);
    /** The columns of z that are Cartesian; the others are as in the chart. */
    [[nodiscard]] const std::vector<int>& getCartesianIndices() const { return columns; }
    [[nodiscard]] int getInputSize() const override { return size; }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& xi) const override;
    [[nodiscard]] std::string getTypeName() const override { return "MixedCoordinates"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getBuffers() const override { return cartesian->getBuffers(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    MixedCoordinates(int size, std::vector<int> columns, std::shared_ptr<EckartCoordinates> cartesian,
                     std::shared_ptr<InternalCoordinates> internal);
    [[nodiscard]] TransformResult replace(const at::Tensor& all, const TransformResult& part, double outside,
                                          double filler) const;
    int size;
    std::vector<int> columns;
    std::shared_ptr<EckartCoordinates> cartesian;
    std::shared_ptr<InternalCoordinates> internal; // of the chosen atoms alone
    at::Tensor index;                              // of the columns
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_MIXEDCOORDINATES_H_*/
