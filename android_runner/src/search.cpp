#include "search.h"

#include <algorithm>

#include "process.h"
#include "vocabulary.h"

namespace tprune {

Translator::Translator(const Artefact& artefact, Encoder& encoder, Step& step, std::size_t beams, std::size_t limit)
    : artefact_(artefact),
      encoder_(encoder),
      step_(step),
      width_(beams),
      limit_(limit),
      beams_(artefact, beams, limit),
      tokens_(beams) {
  output_.reserve(limit);
}

Sample Translator::translate(const Ids& source) {
  Sample sample;
  const std::int64_t begin = now_ns();
  output_.clear();
  std::fill(tokens_.begin(), tokens_.end(), artefact_.start);
  sample.run_ns = encoder_.run(source);
  step_.start(source.size());
  const std::int64_t encoded = now_ns();
  width_ == 1 ? greedy(sample) : beam(sample);
  for (std::int64_t& row : output_) row = artefact_.token(row);
  const std::int64_t end = now_ns();
  sample.encoder_ns = encoded - begin;
  sample.step_ns = end - encoded;
  sample.total_ns = end - begin;
  return sample;
}

void Translator::greedy(Sample& sample) {
  const auto vocabulary = static_cast<std::size_t>(artefact_.vocabulary);
  for (std::size_t position = 0; position + 1 < limit_; ++position) {
    sample.run_ns += step_.run(position, tokens_.data());
    ++sample.steps;
    float* logits = step_.logits(0);
    if (artefact_.pad) logits[*artefact_.pad] = kNever;
    tokens_[0] = forces(position) ? *artefact_.forced_eos : static_cast<std::int64_t>(largest(logits, vocabulary));
    output_.push_back(tokens_[0]);
    if (tokens_[0] == artefact_.eos) break;
  }
}

void Translator::beam(Sample& sample) {
  beams_.start();
  for (std::size_t position = 0; position + 1 < limit_; ++position) {
    sample.run_ns += step_.run(position, tokens_.data());
    ++sample.steps;
    for (std::size_t beam = 0; beam < width_; ++beam) {
      forces(position) ? beams_.offer_forced(beam, *artefact_.forced_eos) : beams_.offer(beam, step_.logits(beam));
    }
    if (!beams_.advance()) break;
    step_.reorder(beams_.parents().data());
    std::copy(beams_.tokens().begin(), beams_.tokens().end(), tokens_.begin());
  }
  output_.assign(beams_.best().begin(), beams_.best().end());
}

}  // namespace tprune
