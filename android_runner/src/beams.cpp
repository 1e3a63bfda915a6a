#include "beams.h"

#include <algorithm>
#include <cmath>

namespace tprune {
namespace {

constexpr float kLost = -1.0e9F;  // the score of a place that no hypothesis holds

void assign(Ids& ids, const Ids& before, std::int64_t last) {
  ids.assign(before.begin(), before.end());
  ids.push_back(last);
}

}  // namespace

Beams::Beams(const Artefact& artefact, std::size_t width, std::size_t limit)
    : width_(width),
      vocabulary_(static_cast<std::size_t>(artefact.vocabulary)),
      eos_(artefact.eos),
      pad_(artefact.pad),
      scoring_(artefact.scoring),
      limit_(limit),
      row_(vocabulary_),
      candidates_(2 * width),
      kept_(width),
      scores_(width),
      running_(width),
      next_(width),
      finished_(width),
      parents_(width),
      tokens_(width) {
  for (Ids& ids : running_) ids.reserve(limit);
  for (Ids& ids : next_) ids.reserve(limit);
  for (Finished& finished : finished_) finished.ids.reserve(limit);
}

void Beams::start() {
  std::fill(scores_.begin(), scores_.end(), kLost);  // all beams start alike: only the first one counts
  scores_[0] = 0;
  for (Ids& ids : running_) ids.clear();
  for (Finished& finished : finished_) {
    finished.score = kLost;
    finished.ids.clear();
    finished.done = false;
  }
  improvable_ = true;
  candidates_.clear();
}

void Beams::offer(std::size_t beam, float* logits) {
  if (!candidates_.takes(scores_[beam])) return;  // a log probability adds nothing; so it is at every start
  row_.read(logits);
  if (pad_) logits[*pad_] = kNever;
  row_.offer(logits, scores_[beam], beam * vocabulary_, candidates_);
}

void Beams::offer_forced(std::size_t beam, std::int64_t token) {
  candidates_.offer({scores_[beam], beam * vocabulary_ + static_cast<std::size_t>(token)});
}

bool Beams::advance() {
  const std::size_t length = running_[0].size() + 1;  // ids that a candidate has
  kept_.clear();
  bool all_ended = true;
  for (std::size_t i = 0; i < candidates_.found().size(); ++i) {
    const Candidate& candidate = candidates_.found()[i];
    const bool over = ended(candidate, length);
    all_ended = all_ended && over;
    kept_.offer({candidate.score + (over ? kLost : 0.0F), i});
  }
  finish(length);
  for (std::size_t beam = 0; beam < width_; ++beam) {
    const Candidate& kept = kept_.found()[beam];
    const Candidate& candidate = candidates_.found()[kept.place];
    parents_[beam] = parent_of(candidate);
    tokens_[beam] = token_of(candidate);
    assign(next_[beam], running_[parents_[beam]], tokens_[beam]);
    scores_[beam] = kept.score;
  }
  running_.swap(next_);
  candidates_.clear();
  return goes_on(length, all_ended);
}

// Keeps the best `width` of the finished ones and those of the top `width` candidates that have just ended.
void Beams::finish(std::size_t length) {
  if (!improvable_ || (scoring_.stop == Scoring::Stop::full && full())) return;
  for (std::size_t i = 0; i < width_; ++i) {
    const Candidate& candidate = candidates_.found()[i];
    if (!ended(candidate, length)) continue;
    insert_finished(candidate.score / divisor(length), running_[parent_of(candidate)], token_of(candidate));
  }
}

void Beams::insert_finished(float score, const Ids& before, std::int64_t last) {
  const auto worse = [&](const Finished& other) { return other.score < score; };
  const auto place = std::find_if(finished_.begin(), finished_.end(), worse);
  if (place == finished_.end()) return;
  std::rotate(place, finished_.end() - 1, finished_.end());  // the worst one's memory serves the new one
  place->score = score;
  place->done = true;
  assign(place->ids, before, last);
}

bool Beams::goes_on(std::size_t length, bool all_ended) {
  // HuggingFace compares with the worst place even when it is empty, and then any running beam can improve.
  const float worst = full() ? finished_.back().score : kLost;
  const bool patient = scoring_.stop == Scoring::Stop::patient && scoring_.length_penalty > 0;
  improvable_ = improvable_ && scores_[0] / divisor(patient ? limit_ - 1 : length) > worst;
  return improvable_ && !all_ended && !(scoring_.stop == Scoring::Stop::full && full());
}

bool Beams::full() const {
  return std::all_of(finished_.begin(), finished_.end(), [](const Finished& found) { return found.done; });
}

float Beams::divisor(std::size_t length) const {
  return static_cast<float>(std::pow(static_cast<double>(length), scoring_.length_penalty));
}

bool Beams::ended(const Candidate& candidate, std::size_t length) const {
  return length + 1 >= limit_ || token_of(candidate) == eos_;
}

std::int64_t Beams::token_of(const Candidate& candidate) const {
  return static_cast<std::int64_t>(candidate.place % vocabulary_);
}

}  // namespace tprune
