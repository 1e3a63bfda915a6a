// The loops over a row of logits, tens of thousands of numbers for every token: the only ones of the runner that are
// long enough to matter. They use the widest vectors that the CPU has.
#pragma once
#include <cstddef>

namespace tprune {

struct Lanes {
  static constexpr std::size_t kGroup = 64;

  struct Peak {
    float value;        // the largest logit; not a number when any logit is not
    std::size_t group;  // where the group begins that holds the first one of that value
  };

  struct Sum {
    float largest;        // as above
    double exponentials;  // the sum of exp(logit - largest)
  };

  Peak (*peak)(const float* logits, std::size_t count);

  // Reads the row once. `largest` takes the largest logit of every kGroup of them, the last ones included.
  Sum (*sum)(const float* logits, std::size_t count, float* largest);
};

// For this CPU.
const Lanes& lanes();

}  // namespace tprune
