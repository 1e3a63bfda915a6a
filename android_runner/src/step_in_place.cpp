// Step for decoders that extend their caches in place: memory for the longest target, bound once for reading and
// writing.
#include <cstring>

#include "failure.h"
#include "process.h"
#include "slots.h"
#include "step.h"

namespace tprune {
namespace {

class InPlaceStep : public Step {
 public:
  InPlaceStep(const StepParts& parts, StepPlan plan) : parts_(parts), plan_(std::move(plan)), slots_(parts.beams) {
    if (!parts.engine.binds_outputs()) throw BadInput("this engine cannot run a decoder_step that extends its caches");
    const auto beams = static_cast<std::int64_t>(parts.beams);
    tokens_ = memory_.tensor(DType::int64, {beams});
    position_ = memory_.tensor(DType::int64, {1});
    logits_ = memory_.tensor(DType::float32, {beams, parts.artefact.vocabulary});
    tokens_view_ = parts.engine.view(tokens_);
    position_view_ = parts.engine.view(position_);
    logits_view_ = parts.engine.view(logits_);
    for (const StepPlan::Cache& cache : plan_.caches) {
      const auto room = static_cast<std::int64_t>(parts.limit);
      caches_.push_back(memory_.tensor(DType::float32, cache.past->dims(beams, -1, room)));
      views_.push_back(parts.engine.view(caches_.back()));
      parts.call.set_input(cache.input, *views_.back());
      parts.call.set_output(cache.output, *views_.back());
    }
    parts.call.set_input(plan_.token, *tokens_view_);
    parts.call.set_input(plan_.position, *position_view_);
    parts.call.set_output(plan_.logits, *logits_view_);
  }

  void start(std::size_t length) override {
    for (const StepPlan::Cross& cross : plan_.crosses) {
      parts_.call.set_input(cross.place, parts_.encoder.output(cross.name, length));
    }
    filled_ = 0;
    slots_.start();
  }

  std::int64_t run(std::size_t position, const std::int64_t* tokens) override {
    for (std::size_t beam = 0; beam < parts_.beams; ++beam) {
      static_cast<std::int64_t*>(tokens_.data)[slots_[beam]] = tokens[beam];
    }
    *static_cast<std::int64_t*>(position_.data) = static_cast<std::int64_t>(position);
    const std::int64_t begin = now_ns();
    parts_.call.run();
    const std::int64_t run_ns = now_ns() - begin;
    ++filled_;
    return run_ns;
  }

  float* logits(std::size_t beam) override {
    return static_cast<float*>(logits_.data) + slots_[beam] * static_cast<std::size_t>(parts_.artefact.vocabulary);
  }

  void reorder(const std::size_t* parents) override {
    slots_.reorder(parents, filled_, [&](std::size_t from, std::size_t to, std::size_t first) {
      for (std::size_t i = 0; i < caches_.size(); ++i) {
        const StepPlan::Cache& cache = plan_.caches[i];
        const std::size_t head = parts_.limit * cache.width;
        auto* memory = static_cast<float*>(caches_[i].data);
        for (std::size_t h = 0; h < cache.heads; ++h) {
          std::memcpy(memory + (to * cache.heads + h) * head + first * cache.width,
                      memory + (from * cache.heads + h) * head + first * cache.width,
                      (filled_ - first) * cache.width * sizeof(float));
        }
      }
    });
  }

 private:
  StepParts parts_;
  StepPlan plan_;
  Memory memory_;
  Buffer tokens_;
  Buffer position_;
  Buffer logits_;
  std::unique_ptr<View> tokens_view_;
  std::unique_ptr<View> position_view_;
  std::unique_ptr<View> logits_view_;
  std::vector<Buffer> caches_;
  std::vector<std::unique_ptr<View>> views_;
  Slots slots_;             // beams among the rows of the batch
  std::size_t filled_ = 0;  // positions of the caches
};

}  // namespace

std::unique_ptr<Step> make_in_place_step(const StepParts& parts, StepPlan plan) {
  return std::make_unique<InPlaceStep>(parts, std::move(plan));
}

}  // namespace tprune
