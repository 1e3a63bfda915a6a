// The choice of tokens in rows of logits.
#pragma once
#include <cstddef>
#include <limits>
#include <vector>

namespace tprune {

// The logit of a token that is forbidden.
constexpr float kNever = -std::numeric_limits<float>::infinity();

// Place of the largest of `count` logits, the first one of equals. Throws Failed when any is not a number.
std::size_t largest(const float* logits, std::size_t count);

// One row's log softmax is (logit - largest) - log_sum.
struct Normaliser {
  float largest = 0;
  float log_sum = 0;

  // A hypothesis' `score` and the log probability of one more token. It never falls when the logit rises.
  float total(float logit, float score) const { return ((logit - largest) - log_sum) + score; }
};

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

  const std::vector<Candidate>& found() const { return found_; }
  bool takes(float score) const { return found_.size() < most_ || score > found_.back().score; }

 private:
  std::size_t most_;
  std::vector<Candidate> found_;
};

// A row of logits, read once for its normaliser and for where the large ones are. Allocates only when constructed.
class Row {
 public:
  explicit Row(std::size_t count);

  // Throws Failed when any logit is not a number.
  void read(const float* logits);

  // Offers the log probabilities of what was read, `score` added to each; the first logit has the place `first`. The
  // logits may have fallen since.
  void offer(const float* logits, float score, std::size_t first, Best& best) const;

 private:
  std::size_t count_;
  Normaliser normaliser_;
  std::vector<float> largest_;  // of every group
};

}  // namespace tprune
