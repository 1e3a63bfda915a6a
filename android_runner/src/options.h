// The command line, checked: every field is within its bounds once `parse_options` has returned.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tprune {

enum class Task : std::uint8_t { help, version, seq2seq, classify, graph };

struct Options {
  Task task = Task::help;
  std::string out_dir;
  std::string nonce;
  std::string library;
  int threads = 1;
  std::vector<int> affinity;  // empty: not asked for
  std::int64_t warmup = 0;    // runs
  std::int64_t warmup_ms = 0;
  std::int64_t gap_ms = 0;
  std::int64_t sample_ms = 0;  // 0: no samples during the run
  bool profile = false;
  int parent = 0;  // process whose end ends the run; 0: none

  // seq2seq and classify
  std::string artefact;
  std::int64_t passes = 1;

  // seq2seq
  std::string ids;
  std::size_t beams = 1;
  std::optional<std::size_t> max_length;  // of the target, the start token included; else the artefact's limit

  // classify
  std::string images;  // .npy file

  // graph
  std::string model;
  std::string method = "forward";
  std::vector<std::pair<std::string, std::string>> inputs;  // name -> .npy file
  std::int64_t iterations = 20;
  std::int64_t min_ms = 0;
};

// Parses the words after the program's name. Throws BadInput.
Options parse_options(const std::vector<std::string>& words);

// What --help prints.
std::string usage(const char* program);

const char* name_of(Task task);

}  // namespace tprune
