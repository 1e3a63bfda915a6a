#include "options.h"

#include <unistd.h>

#include <charconv>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "failure.h"
#include "process.h"

namespace tprune {
namespace {

constexpr std::int64_t kMostRuns = 1'000'000;
constexpr std::int64_t kLongestWait = 3'600'000;  // ms
constexpr std::int64_t kMostThreads = 64;
constexpr std::int64_t kMostBeams = 64;
constexpr std::size_t kLongestNonce = 256;

std::int64_t number(const std::string& flag, const std::string& text, std::int64_t least, std::int64_t most) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < least || value > most) {
    throw BadInput(flag + " must be a number from " + std::to_string(least) + " to " + std::to_string(most) +
                   ", not '" + text + "'");
  }
  return value;
}

std::pair<std::string, std::string> named_file(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    throw BadInput("--in must be NAME=FILE.npy, not '" + text + "'");
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

using Take = std::function<void(const std::string& flag, const std::string& value)>;

// Flag -> what to do with its value, for one task.
std::map<std::string, Take> flags_of(Options& options) {
  const auto text = [](std::string& field) {
    return [&field](const std::string& flag, const std::string& value) {
      if (value.empty()) throw BadInput(flag + " must not be empty");
      field = value;
    };
  };
  const auto count = [](auto& field, std::int64_t least, std::int64_t most) {
    return [&field, least, most](const std::string& flag, const std::string& value) {
      field = static_cast<std::decay_t<decltype(field)>>(number(flag, value, least, most));
    };
  };
  std::map<std::string, Take> flags = {
      {"--out-dir", text(options.out_dir)},
      {"--nonce",
       [&](const std::string& flag, const std::string& value) {
         if (value.size() > kLongestNonce) throw BadInput(flag + " is longer than 256 bytes");
         options.nonce = value;
       }},
      {"--library", text(options.library)},
      {"--threads", count(options.threads, 1, kMostThreads)},
      {"--affinity", [&](const std::string&, const std::string& value) { options.affinity = parse_cpus(value); }},
      {"--warmup", count(options.warmup, 0, kMostRuns)},
      {"--warmup-ms", count(options.warmup_ms, 0, kLongestWait)},
      {"--gap-ms", count(options.gap_ms, 0, kLongestWait)},
      {"--sample-ms", count(options.sample_ms, 0, kLongestWait)},
  };
  if (options.task != Task::graph) {
    flags.insert({
        {"--artefact", text(options.artefact)},
        {"--passes", count(options.passes, 1, kMostRuns)},
        {"--min-ms", count(options.min_ms, 0, kLongestWait)},
    });
  }
  if (options.task == Task::classify) flags.insert({"--images", text(options.images)});
  if (options.task == Task::seq2seq) {
    flags.insert({
        {"--ids", text(options.ids)},
        {"--beams", count(options.beams, 1, kMostBeams)},
        {"--max-length",
         [&](const std::string& flag, const std::string& value) {
           options.max_length =
               static_cast<std::size_t>(number(flag, value, 2, std::numeric_limits<std::int32_t>::max()));
         }},
    });
  }
  if (options.task == Task::graph) {
    flags.insert({
        {"--model", text(options.model)},
        {"--method", text(options.method)},
        {"--in", [&](const std::string&, const std::string& value) { options.inputs.push_back(named_file(value)); }},
        {"--iterations", count(options.iterations, 1, kMostRuns)},
        {"--min-ms", count(options.min_ms, 0, kLongestWait)},
    });
  }
  return flags;
}

Task task_named(const std::string& word) {
  for (const Task task : {Task::seq2seq, Task::classify, Task::graph}) {
    if (word == name_of(task)) return task;
  }
  throw BadInput("unknown task '" + word + "'; it must be seq2seq, classify or graph");
}

void need(const std::string& value, const char* flag) {
  if (value.empty()) throw BadInput(std::string(flag) + " is missing");
}

}  // namespace

Options parse_options(const std::vector<std::string>& words) {
  Options options;
  if (words.empty()) throw BadInput("no task; say seq2seq, classify, graph, --version or --help");
  if (words[0] == "--help" || words[0] == "--version") {
    options.task = words[0] == "--help" ? Task::help : Task::version;
    if (words.size() == 1) return options;
    if (options.task == Task::version && words.size() == 3 && words[1] == "--library") {
      options.library = words[2];
      return options;
    }
    throw BadInput(words[0] + " stands alone");
  }
  options.task = task_named(words[0]);
  const std::map<std::string, Take> flags = flags_of(options);
  std::set<std::string> seen;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& flag = words[i];
    if (!seen.insert(flag).second && flag != "--in") throw BadInput(flag + " is given twice");
    if (flag == "--profile") {
      options.profile = true;
      continue;
    }
    if (flag == "--check-parent") {
      options.parent = ::getppid();
      continue;
    }
    const auto known = flags.find(flag);
    if (known == flags.end()) throw BadInput("'" + flag + "' is not an option of " + words[0]);
    if (++i == words.size()) throw BadInput(flag + " needs a value");
    known->second(flag, words[i]);
  }
  need(options.out_dir, "--out-dir");
  if (options.task != Task::graph) need(options.artefact, "--artefact");
  if (options.task == Task::seq2seq) need(options.ids, "--ids");
  if (options.task == Task::classify) need(options.images, "--images");
  if (options.task == Task::graph) {
    need(options.model, "--model");
    if (options.inputs.empty()) throw BadInput("--in is missing");
  }
  return options;
}

std::string usage(const char* program) {
  const std::string name = program;
  return "usage: " + name +
         " seq2seq --artefact DIR --ids FILE --out-dir DIR [--beams N] [--max-length N] [--passes N] [--min-ms N]\n" +
         "       " + name + " classify --artefact DIR --images FILE.npy --out-dir DIR [--passes N] [--min-ms N]\n" +
         "       " + name +
         " graph --model FILE [--method NAME] --in NAME=FILE.npy... --out-dir DIR [--iterations N] [--min-ms N]\n" +
         "       " + name +
         " --version | --help\n"
         "all tasks: [--nonce TEXT] [--library FILE] [--threads N] [--affinity LIST] [--warmup N] [--warmup-ms N] "
         "[--gap-ms N]\n"
         "           [--sample-ms N] [--profile] [--check-parent]\n"
         "exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 3 the engine's library cannot be loaded\n";
}

const char* name_of(Task task) {
  return task == Task::graph ? "graph" : task == Task::classify ? "classify" : "seq2seq";
}

}  // namespace tprune
