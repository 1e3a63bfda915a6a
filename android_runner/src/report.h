// report.json: what a run was, what it measured and where. The schema is documented in ../README.md.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"
#include "machine.h"
#include "options.h"
#include "process.h"
#include "workload.h"

namespace tprune {

// One .npy file that a graph run has left.
struct OutputFile {
  std::string name;
  DType dtype = DType::float32;
  Dims dims;
  std::string file;
};

struct Report {
  std::string engine_version;
  std::vector<std::pair<std::string, std::string>> facts;  // of the engine
  std::string artefact;                                    // empty: none
  std::size_t max_length = 0;                              // 0: none
  std::vector<int> affinity_got;
  int threads_got = 0;
  std::int64_t load_ns = 0;
  Measured measured;
  std::vector<OutputFile> tensors;  // of a graph
  MemoryUse start;
  MemoryUse loaded;
  MemoryUse end;
  std::string profile;  // file name; empty: none
};

// The document of a run that went well.
std::string report_text(const Options& options, const Report& report);

// The document of a run that did not.
std::string failure_text(const Options& options, const std::string& error);

// The line that --version prints; an empty engine version means that the library cannot be loaded.
std::string version_text(const std::string& engine_version);

}  // namespace tprune
