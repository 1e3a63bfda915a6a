// Step for decoders that give the new row of every cache, which is put in here.
#include <algorithm>
#include <cstring>

#include "failure.h"
#include "process.h"
#include "slots.h"
#include "step.h"

namespace tprune {
namespace {

// Rows are offered in multiples of this many: back ends plan their memory anew whenever a size grows.
constexpr std::size_t kStride = 8;
constexpr std::size_t kMostViews = 1 << 18;

class RowStep : public Step {
 public:
  RowStep(const StepParts& parts, StepPlan plan)
      : parts_(parts), plan_(std::move(plan)), room_(offered(parts.limit - 1)), slots_(parts.beams) {
    if (parts.beams * plan_.caches.size() * (room_ / kStride + 1) > kMostViews) {
      throw BadInput("too many caches for so many beams and so long a target");
    }
    token_ = memory_.tensor(DType::int64, {1});
    position_ = memory_.tensor(DType::int64, {1});
    token_view_ = parts.engine.view(token_);
    position_view_ = parts.engine.view(position_);
    parts.call.set_input(plan_.token, *token_view_);
    parts.call.set_input(plan_.position, *position_view_);
    for (std::size_t beam = 0; beam < parts.beams; ++beam) {
      logits_.push_back(memory_.tensor(DType::float32, {1, parts.artefact.vocabulary}));
      logits_views_.push_back(parts.engine.view(logits_.back()));
    }
    // A new row goes to memory of its own first: the engine may still read the cache while it writes outputs.
    for (const StepPlan::Cache& cache : plan_.caches) {
      rows_.push_back(memory_.tensor(DType::float32, cache.present->dims(1, -1, -1)));
      row_views_.push_back(parts.engine.view(rows_.back()));
      if (parts.engine.binds_outputs()) parts.call.set_output(cache.output, *row_views_.back());
    }
    for (std::size_t i = 0; i < parts.beams; ++i) states_.push_back(make_state());
  }

  void start(std::size_t length) override {
    for (const StepPlan::Cross& cross : plan_.crosses) {
      parts_.call.set_input(cross.place, parts_.encoder.output(cross.name, length));
    }
    filled_ = 0;
    slots_.start();
  }

  std::int64_t run(std::size_t position, const std::int64_t* tokens) override {
    *static_cast<std::int64_t*>(position_.data) = static_cast<std::int64_t>(position);
    const std::size_t view = view_of(offered(filled_));
    std::int64_t run_ns = 0;
    for (std::size_t beam = 0; beam < parts_.beams; ++beam) {
      *static_cast<std::int64_t*>(token_.data) = tokens[beam];
      State& state = states_[slots_[beam]];
      for (std::size_t i = 0; i < state.size(); ++i) {
        parts_.call.set_input(plan_.caches[i].input, *state[i].views[view]);
      }
      if (parts_.engine.binds_outputs()) parts_.call.set_output(plan_.logits, *logits_views_[beam]);
      const std::int64_t begin = now_ns();
      parts_.call.run();
      run_ns += now_ns() - begin;
      collect(beam, state);
    }
    ++filled_;
    return run_ns;
  }

  float* logits(std::size_t beam) override { return static_cast<float*>(logits_[beam].data); }

  void reorder(const std::size_t* parents) override {
    slots_.reorder(parents, filled_, [&](std::size_t from, std::size_t to, std::size_t first) {
      for (std::size_t i = 0; i < plan_.caches.size(); ++i) {
        const std::size_t skipped = first * row_bytes(i);
        std::memcpy(static_cast<char*>(states_[to][i].memory.data) + skipped,
                    static_cast<const char*>(states_[from][i].memory.data) + skipped, filled_ * row_bytes(i) - skipped);
      }
    });
  }

 private:
  struct Cache {
    Buffer memory;                             // room_ rows
    std::vector<std::unique_ptr<View>> views;  // on ever more of them
  };
  using State = std::vector<Cache>;  // one beam's

  // How many rows are offered when `filled` are in use. The artefact takes at least one and at most its limit.
  std::size_t offered(std::size_t filled) const {
    const std::size_t whole = (std::max<std::size_t>(filled, 1) + kStride - 1) / kStride * kStride;
    return std::min(whole, parts_.artefact.longest_target);
  }

  static std::size_t view_of(std::size_t rows) { return (rows - 1) / kStride; }

  State make_state() {
    State state;
    for (const StepPlan::Cache& plan : plan_.caches) {
      Cache cache;
      cache.memory = memory_.tensor(DType::float32, plan.past->dims(1, -1, static_cast<std::int64_t>(room_)));
      for (std::size_t rows = offered(1);; rows = offered(rows + 1)) {
        const Dims dims = plan.past->dims(1, -1, static_cast<std::int64_t>(rows));
        cache.views.push_back(parts_.engine.view({cache.memory.data, DType::float32, dims}));
        if (rows == room_) break;
      }
      state.push_back(std::move(cache));
    }
    return state;
  }

  std::size_t row_bytes(std::size_t i) const { return plan_.caches[i].heads * plan_.caches[i].width * sizeof(float); }

  // Puts the new rows into a beam's caches; brings its logits here when they are the engine's memory.
  void collect(std::size_t beam, State& state) {
    if (!parts_.engine.binds_outputs()) {
      const Buffer own = checked(plan_.logits, logits_[beam].dims, "logits");
      std::memcpy(logits_[beam].data, own.data, static_cast<std::size_t>(parts_.artefact.vocabulary) * sizeof(float));
    }
    for (std::size_t i = 0; i < state.size(); ++i) {
      const StepPlan::Cache& cache = plan_.caches[i];
      const Buffer row =
          parts_.engine.binds_outputs() ? rows_[i] : checked(cache.output, rows_[i].dims, cache.present->name);
      std::memcpy(static_cast<char*>(state[i].memory.data) + filled_ * row_bytes(i), row.data, row_bytes(i));
    }
  }

  Buffer checked(std::size_t place, const Dims& wanted, const std::string& name) {
    const Buffer own = parts_.call.output(place);
    if (own.dtype == DType::float32 && own.dims == wanted) return own;
    throw Failed("decoder_step gave " + own.dims.text() + " for '" + name + "' instead of " + wanted.text());
  }

  StepParts parts_;
  StepPlan plan_;
  std::size_t room_;  // rows of every cache
  Memory memory_;
  Buffer token_;
  Buffer position_;
  std::unique_ptr<View> token_view_;
  std::unique_ptr<View> position_view_;
  std::vector<Buffer> logits_;  // one per beam
  std::vector<std::unique_ptr<View>> logits_views_;
  std::vector<Buffer> rows_;  // new rows, one per cache
  std::vector<std::unique_ptr<View>> row_views_;
  std::vector<State> states_;
  Slots slots_;             // beams among the states
  std::size_t filled_ = 0;  // rows
};

}  // namespace

std::unique_ptr<Step> make_row_step(const StepParts& parts, StepPlan plan) {
  return std::make_unique<RowStep>(parts, std::move(plan));
}

}  // namespace tprune
