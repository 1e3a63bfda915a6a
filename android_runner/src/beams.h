// The bookkeeping of one sentence's beam search: the same as export/beam.py, which is the result of HuggingFace
// `generate(num_beams=k)`. Works in rows of the output matrix.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "artefact.h"
#include "ids.h"
#include "vocabulary.h"

namespace tprune {

// Allocates only when constructed.
class Beams {
 public:
  // `limit`: most ids of a hypothesis, the start token included.
  Beams(const Artefact& artefact, std::size_t width, std::size_t limit);

  void start();

  // One step: offer every beam's logits (or the one token that is forced upon it), then advance. As HuggingFace has it,
  // `<pad>` takes its share of the probability before it is forbidden, which changes its logit.
  void offer(std::size_t beam, float* logits);
  void offer_forced(std::size_t beam, std::int64_t token);
  bool advance();  // whether to go on; then `parents` and `tokens` say what the beams are now

  const std::vector<std::size_t>& parents() const { return parents_; }  // which beam each of them was before
  const std::vector<std::int64_t>& tokens() const { return tokens_; }   // the last token of each

  const Ids& best() const { return finished_.front().ids; }  // without the start token

 private:
  struct Finished {
    float score = 0;
    Ids ids;
    bool done = false;
  };

  void finish(std::size_t length);
  void insert_finished(float score, const Ids& before, std::int64_t last);
  bool goes_on(std::size_t length, bool all_ended);
  bool full() const;
  float divisor(std::size_t length) const;
  bool ended(const Candidate& candidate, std::size_t length) const;
  std::int64_t token_of(const Candidate& candidate) const;
  std::size_t parent_of(const Candidate& candidate) const { return candidate.place / vocabulary_; }

  std::size_t width_;
  std::size_t vocabulary_;
  std::int64_t eos_;
  std::optional<std::int64_t> pad_;
  Scoring scoring_;
  std::size_t limit_;
  bool improvable_ = true;
  Row row_;
  Best candidates_;  // twice as many as beams, so that enough are left when some of them end
  Best kept_;        // places among the candidates
  std::vector<float> scores_;
  std::vector<Ids> running_;
  std::vector<Ids> next_;
  std::vector<Finished> finished_;  // best first
  std::vector<std::size_t> parents_;
  std::vector<std::int64_t> tokens_;
};

}  // namespace tprune
