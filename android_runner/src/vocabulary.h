// Work over one row of logits, a few thousand numbers: the only loops of the runner that are long enough to matter.
#pragma once
#include <cstddef>
#include <vector>

namespace tprune {

// Place of the largest of `count` logits, the first one of equals. Throws Failed when any is not a number.
std::size_t largest(const float* logits, std::size_t count);

// One row's log softmax is (logit - largest) - log_sum.
struct Normaliser {
  float largest = 0;
  float log_sum = 0;
};

// Throws Failed when any logit is not a number.
Normaliser normaliser(const float* logits, std::size_t count);

struct Candidate {
  float score = 0;
  std::size_t place = 0;
};

// The best `most` of all candidates offered, best first; of equals the one offered first. Allocates only when
// constructed.
class Best {
 public:
  explicit Best(std::size_t most) : most_(most) { found_.reserve(most + 1); }

  void clear() { found_.clear(); }
  void offer(Candidate candidate);
  // Offers a row's log probabilities, `score` added to each; the row's first logit has the place `first`.
  void offer_row(const float* logits, std::size_t count, const Normaliser& row, float score, std::size_t first);

  const std::vector<Candidate>& found() const { return found_; }

 private:
  std::size_t most_;
  std::vector<Candidate> found_;
};

}  // namespace tprune
