// Step for decoders whose caches grow: two sets of memory, of which each run reads one and writes the other.
#include <algorithm>
#include <array>
#include <cstring>

#include "failure.h"
#include "process.h"
#include "step.h"

namespace tprune {
namespace {

constexpr std::size_t kMostViews = 1 << 18;

class GrowingStep : public Step {
 public:
  GrowingStep(const StepParts& parts, StepPlan plan) : parts_(parts), plan_(std::move(plan)) {
    if (!parts.engine.binds_outputs()) throw BadInput("this engine cannot run a decoder_step whose caches grow");
    if (plan_.caches.size() * parts.limit > kMostViews) throw BadInput("too many caches for so long a target");
    const auto beams = static_cast<std::int64_t>(parts.beams);
    tokens_ = memory_.tensor(DType::int64, {beams});
    position_ = memory_.tensor(DType::int64, {1});
    logits_ = memory_.tensor(DType::float32, {beams, parts.artefact.vocabulary});
    tokens_view_ = parts.engine.view(tokens_);
    position_view_ = parts.engine.view(position_);
    logits_view_ = parts.engine.view(logits_);
    for (const StepPlan::Cache& cache : plan_.caches) caches_.push_back(make(cache, beams));
    parts.call.set_input(plan_.token, *tokens_view_);
    parts.call.set_input(plan_.position, *position_view_);
    parts.call.set_output(plan_.logits, *logits_view_);
  }

  void start(std::size_t length) override {
    for (const StepPlan::Cross& cross : plan_.crosses) {
      parts_.call.set_input(cross.place, parts_.encoder.output(cross.name, length));
    }
    filled_ = 0;
  }

  std::int64_t run(std::size_t position, const std::int64_t* tokens) override {
    std::memcpy(tokens_.data, tokens, parts_.beams * sizeof *tokens);
    *static_cast<std::int64_t*>(position_.data) = static_cast<std::int64_t>(position);
    for (std::size_t i = 0; i < caches_.size(); ++i) {
      parts_.call.set_input(plan_.caches[i].input, *caches_[i].views[side_][filled_]);
      parts_.call.set_output(plan_.caches[i].output, *caches_[i].views[1 - side_][filled_ + 1]);
    }
    const std::int64_t begin = now_ns();
    parts_.call.run();
    const std::int64_t run_ns = now_ns() - begin;
    side_ = 1 - side_;
    ++filled_;
    return run_ns;
  }

  const float* logits(std::size_t beam) const override {
    return static_cast<const float*>(logits_.data) + beam * static_cast<std::size_t>(parts_.artefact.vocabulary);
  }

  void reorder(const std::size_t* parents) override {
    std::size_t same = 0;
    while (same < parts_.beams && parents[same] == same) ++same;
    if (same == parts_.beams) return;
    for (std::size_t i = 0; i < caches_.size(); ++i) {
      const std::size_t row = plan_.caches[i].heads * filled_ * plan_.caches[i].width * sizeof(float);
      const auto* from = static_cast<const char*>(caches_[i].memory[side_].data);
      auto* to = static_cast<char*>(caches_[i].memory[1 - side_].data);
      for (std::size_t beam = 0; beam < parts_.beams; ++beam) {
        std::memcpy(to + beam * row, from + parents[beam] * row, row);
      }
    }
    side_ = 1 - side_;
  }

 private:
  struct Cache {
    std::array<Buffer, 2> memory;
    std::array<std::vector<std::unique_ptr<View>>, 2> views;  // by how many positions are filled
  };

  Cache make(const StepPlan::Cache& plan, std::int64_t beams) {
    Cache cache;
    for (std::size_t side : {0U, 1U}) {
      cache.memory[side] =
          memory_.tensor(DType::float32, plan.past->dims(beams, -1, static_cast<std::int64_t>(parts_.limit)));
      for (std::size_t filled = 0; filled < parts_.limit; ++filled) {
        const Dims dims = plan.past->dims(beams, -1, static_cast<std::int64_t>(filled));
        cache.views[side].push_back(parts_.engine.view({cache.memory[side].data, DType::float32, dims}));
      }
    }
    return cache;
  }

  StepParts parts_;
  StepPlan plan_;
  Memory memory_;
  Buffer tokens_;
  Buffer position_;
  Buffer logits_;
  std::unique_ptr<View> tokens_view_;
  std::unique_ptr<View> position_view_;
  std::unique_ptr<View> logits_view_;
  std::vector<Cache> caches_;
  std::size_t side_ = 0;    // which of the two sets holds the past
  std::size_t filled_ = 0;  // positions in it
};

}  // namespace

std::unique_ptr<Step> make_growing_step(const StepParts& parts, StepPlan plan) {
  return std::make_unique<GrowingStep>(parts, std::move(plan));
}

}  // namespace tprune
