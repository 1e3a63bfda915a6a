// Greedy and beam search over an artefact's two graphs: the same tokens as `Artefact.greedy` and `.beam` of
// export/runtime.py.
#pragma once
#include <memory>
#include <vector>

#include "artefact.h"
#include "beams.h"
#include "encoder.h"
#include "step.h"
#include "workload.h"

namespace tprune {

class Translator {
 public:
  // `limit`: most ids of a target, the start token included; at least 2. One beam: greedy search.
  Translator(const Artefact& artefact, Encoder& encoder, Step& step, std::size_t beams, std::size_t limit);

  // Translates one sentence. Allocates nothing.
  Sample translate(const Ids& source);

  // Token ids of the last translation: </s> included where it was produced, no start token.
  const Ids& output() const { return output_; }

 private:
  void greedy(Sample& sample);
  void beam(Sample& sample);
  bool forces(std::size_t position) const { return artefact_.forced_eos && position + 2 == limit_; }

  const Artefact& artefact_;
  Encoder& encoder_;
  Step& step_;
  std::size_t width_;
  std::size_t limit_;
  Beams beams_;
  std::vector<std::int64_t> tokens_;  // the last of each beam, in rows
  Ids output_;
};

}  // namespace tprune
