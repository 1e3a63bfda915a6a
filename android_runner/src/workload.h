// The timed part of a run, the same for all tasks: warm-up, samples, and what the machine did meanwhile.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "conditions.h"
#include "options.h"
#include "process.h"

namespace tprune {

// One sentence, one image, or one run of a graph. The parts are of a sentence only.
struct Sample {
  std::int64_t total_ns = 0;
  std::int64_t run_ns = 0;      // inside the engine
  std::int64_t encoder_ns = 0;  // ids in to decoder's inputs ready
  std::int64_t step_ns = 0;     // all decoder steps, choice of tokens included
  std::int64_t steps = 0;
};

struct Measured {
  std::int64_t first_ns = 0;  // of the very first run of the process, whether warm-up or sample
  std::int64_t warmup_runs = 0;
  std::int64_t warmup_ns = 0;
  std::vector<Sample> samples;
  std::int64_t voluntary = 0;  // context switches during samples
  std::int64_t involuntary = 0;
  double cpu_share = 0;  // of the samples' time that the calling thread had a CPU
  Conditions before;     // after the warm-up
  Conditions after;
  std::vector<Conditions> during;
};

// How many samples: `count`, and more until they have taken `min_ns`, always a multiple of `whole`.
struct Amount {
  std::size_t count = 0;
  std::int64_t min_ns = 0;
  std::size_t whole = 1;
};

// Calls `once(i)` for warm-up runs and then, from i = 0 again, for samples; after each sample `keep(i)`, which is not
// timed. Throws Failed when the watched parent is gone, and whatever the two throw.
Measured measure(const Options& options, const Amount& amount, const std::function<Sample(std::size_t)>& once,
                 const std::function<void(std::size_t)>& keep);

}  // namespace tprune
