#include <algorithm>

#include "artefact.h"
#include "encoder.h"
#include "failure.h"
#include "ids.h"
#include "search.h"
#include "step.h"
#include "task.h"

namespace tprune {
namespace {

std::size_t target_limit(const Options& options, const Artefact& artefact) {
  const std::size_t limit = options.max_length.value_or(artefact.longest_target);
  if (limit > artefact.longest_target) {
    throw BadInput("--max-length " + std::to_string(limit) + " is beyond the artefact's limit of " +
                   std::to_string(artefact.longest_target));
  }
  return limit;
}

}  // namespace

Report run_seq2seq(const Options& options) {
  Report report;
  report.start = memory_use();
  const Artefact artefact = read_artefact(options.artefact, identity().engine);
  const std::vector<Ids> sentences = read_ids(options.ids, artefact.longest_source);
  const std::size_t limit = target_limit(options, artefact);
  if (!options.affinity.empty()) set_affinity(options.affinity);

  const std::int64_t begin = now_ns();
  const std::unique_ptr<Engine> engine = load_engine(options);
  const std::unique_ptr<Call> encoder_call = engine->open(artefact.encoder.file, artefact.encoder.name);
  const std::unique_ptr<Call> step_call = engine->open(artefact.step.file, artefact.step.name);
  check_ports(artefact.encoder, *encoder_call);
  check_ports(artefact.step, *step_call);
  const bool on_batch = batched(artefact);
  Encoder encoder(*engine, *encoder_call, artefact.encoder, sentences, on_batch ? options.beams : 1);
  const std::unique_ptr<Step> step =
      make_step({*engine, *step_call, encoder, artefact, options.beams, limit}, on_batch);
  Translator translator(artefact, encoder, *step, options.beams, limit);
  report.load_ns = now_ns() - begin;
  report.loaded = memory_use();

  std::vector<Ids> outputs(sentences.size());
  const auto once = [&](std::size_t i) { return translator.translate(sentences[i % sentences.size()]); };
  const auto keep = [&](std::size_t i) {
    const std::size_t sentence = i % sentences.size();
    if (i < sentences.size()) {
      outputs[sentence] = translator.output();
    } else if (outputs[sentence] != translator.output()) {
      throw Failed("pass " + std::to_string(i / sentences.size() + 1) + " sentence " + std::to_string(sentence + 1) +
                   " gave other tokens than pass 1");
    }
  };
  const std::size_t passes = static_cast<std::size_t>(options.passes);
  const Amount amount{sentences.size() * passes, options.min_ms * 1'000'000, sentences.size()};
  report.measured = measure(options, amount, once, keep);
  report.artefact = artefact.id;
  report.max_length = limit;
  write_ids(options.out_dir + "/output.ids", outputs);
  finish_report(report, *engine);
  return report;
}

}  // namespace tprune
