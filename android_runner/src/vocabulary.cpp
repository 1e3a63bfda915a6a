#include "vocabulary.h"

#include <algorithm>
#include <cmath>

#include "failure.h"
#include "lanes.h"

namespace tprune {
namespace {

void check(float largest) {
  if (std::isnan(largest)) throw Failed("the model's logits are not numbers (NaN)");
}

}  // namespace

std::size_t largest(const float* logits, std::size_t count) {
  const Lanes::Peak found = lanes().peak(logits, count);
  check(found.value);
  std::size_t i = found.group;
  while (logits[i] != found.value) ++i;
  return i;
}

void Best::offer(Candidate candidate) {
  if (!takes(candidate.score)) return;
  const auto worse = [&](const Candidate& other) { return other.score < candidate.score; };
  found_.insert(std::find_if(found_.begin(), found_.end(), worse), candidate);
  if (found_.size() > most_) found_.pop_back();
}

Row::Row(std::size_t count) : count_(count), largest_((count + Lanes::kGroup - 1) / Lanes::kGroup) {}

void Row::read(const float* logits) {
  const Lanes::Sum sum = lanes().sum(logits, count_, largest_.data());
  check(sum.largest);
  normaliser_ = {sum.largest, static_cast<float>(std::log(sum.exponentials))};
}

void Row::offer(const float* logits, float score, std::size_t first, Best& best) const {
  for (std::size_t group = 0; group < largest_.size(); ++group) {
    if (!best.takes(normaliser_.total(largest_[group], score))) continue;
    const std::size_t stop = std::min((group + 1) * Lanes::kGroup, count_);
    for (std::size_t i = group * Lanes::kGroup; i < stop; ++i) {
      best.offer({normaliser_.total(logits[i], score), first + i});
    }
  }
}

}  // namespace tprune
