// One decoder step over all beams, with the caches that it reads and extends.
//
// There are two forms of an artefact's decoder_step, told apart by the shapes in its manifest:
// * in place: takes caches of keys and values [batch, heads, cache, width] with room for the longest target and gives
// the
//   same ones with the token's row put in at its position. Beams ride on the batch. (ONNX)
// * rows: takes at least as many rows of past keys and values, [1, past, heads, width], as there are, ignores further
//   ones, and gives the new row, [1, 1, heads, width], which is put in its place here. One beam at a time. (ExecuTorch)
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "artefact.h"
#include "encoder.h"
#include "engine.h"

namespace tprune {

class Step {
 public:
  Step() = default;
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  virtual ~Step() = default;

  // Begins a sentence of `length` source tokens, which the encoder has just encoded.
  virtual void start(std::size_t length) = 0;

  // Feeds one token (a row of the output matrix) per beam, as number `position` of its target. Returns ns in the
  // engine.
  virtual std::int64_t run(std::size_t position, const std::int64_t* tokens) = 0;

  // The logits that the last run gave a beam, to be changed at will; valid until the next run.
  virtual float* logits(std::size_t beam) = 0;

  // Lets beam i continue from what beam parents[i] was.
  virtual void reorder(const std::size_t* parents) = 0;
};

// What each input and output of a decoder_step is for.
struct StepPlan {
  struct Cross {
    std::size_t place;  // among the inputs
    std::string name;   // of the encoder's output
  };
  struct Cache {
    const PortSpec* past;
    const PortSpec* present;
    std::size_t input;  // places
    std::size_t output;
    std::size_t heads;
    std::size_t width;
  };
  std::size_t token = 0;
  std::size_t position = 0;
  std::size_t logits = 0;
  std::vector<Cross> crosses;
  std::vector<Cache> caches;
};

// What both forms are made from; the references outlive the step.
struct StepParts {
  Engine& engine;
  Call& call;
  const Encoder& encoder;
  const Artefact& artefact;
  std::size_t beams;
  std::size_t limit;  // most target tokens, the start token included
};

// Makes the form that the artefact has. Throws BadInput when it is neither.
std::unique_ptr<Step> make_step(const StepParts& parts, bool batched);

// Whether beams ride on the batch, and caches are extended in place; `plan_step` checks it all.
bool batched(const Artefact& artefact);
StepPlan plan_step(const StepParts& parts, bool batched);

std::unique_ptr<Step> make_in_place_step(const StepParts& parts, StepPlan plan);
std::unique_ptr<Step> make_row_step(const StepParts& parts, StepPlan plan);

}  // namespace tprune
