// The tasks. Each opens its inputs, loads the engine, measures, and leaves its output files in the out-dir.
#pragma once
#include "options.h"
#include "report.h"

namespace tprune {

// Translates sentences with an artefact's encoder and decoder_step.
Report run_seq2seq(const Options& options);

// Classifies images, one at a time, with an image network's artefact.
Report run_classify(const Options& options);

// Runs one graph on given inputs again and again.
Report run_graph(const Options& options);

// The engine as the options ask for it.
std::unique_ptr<Engine> load_engine(const Options& options);

// What all tasks put into a report when they are done: versions, threads, affinity, memory, profile.
void finish_report(Report& report, Engine& engine);

}  // namespace tprune
