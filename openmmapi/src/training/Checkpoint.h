#ifndef OPENMMFLOW_TRAINING_CHECKPOINT_H_
#define OPENMMFLOW_TRAINING_CHECKPOINT_H_
// SPDX-License-Identifier: MIT

#include "Adam.h"
#include "openmmflow/flows/FlowFile.h"
#include "openmmflow/latent/Random.h"
#include <nlohmann/json.hpp>

namespace OpenMMFlow {

/** The file of a training that goes on later: parameters with Adam's moments, other tensors, random numbers, and what
 * else there is as JSON. */
class Checkpoint {
public:
    Checkpoint() = default;
    /** @param where  the function that reads, for its errors; a file of something else, or a damaged one, throws */
    Checkpoint(const char* where, const std::string& path);
    /** Whole or not at all. */
    void write(const std::string& path);

    /** @param prefix  of their names in the file */
    void add(const std::string& prefix, const NamedTensors& parameters, const Adam& optimizer);
    void add(const std::string& prefix, const NamedTensors& tensors);
    void setRandom(const Random& random);

    /** Find what is to become of these parameters and moments, whose shapes and types have to be theirs. */
    void expect(const std::string& prefix, const NamedTensors& parameters, const Adam& optimizer);
    /** The tensors whose names begin with a prefix, without it. */
    [[nodiscard]] NamedTensors find(const std::string& prefix) const;
    /** A number. */
    [[nodiscard]] std::int64_t getInteger(const char* name) const;
    [[nodiscard]] Random::State getRandom() const;
    /** Copy to the tensors that were expected: after all has been checked. */
    void restore() const;

    nlohmann::json values;

private:
    template <class Value>
    Value get(const char* name) const;
    const char* where = "";
    FlowFile file;
    std::map<std::string, at::Tensor> saved;
    std::vector<std::pair<at::Tensor, at::Tensor>> copies; // to, from
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_CHECKPOINT_H_*/
