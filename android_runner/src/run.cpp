#include "run.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "failure.h"
#include "file.h"
#include "options.h"
#include "report.h"
#include "task.h"

namespace tprune {
namespace {

// An error as one line, whatever an engine has put into it.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return text;
}

int say(const std::string& error, int code) {
  std::fprintf(stderr, "%s: %s\n", identity().program, error.c_str());
  return code;
}

// Calls `work` and turns what it throws into an exit code and one line.
template <typename Work>
int guarded(const Work& work, std::string& error) {
  try {
    work();
    return 0;
  } catch (const BadInput& why) {
    error = one_line(why.what());
    return 2;
  } catch (const NoLibrary& why) {
    error = one_line(why.what());
    return 3;
  } catch (const std::bad_alloc&) {
    error = "out of memory";
  } catch (const std::exception& why) {
    error = one_line(why.what());
  }
  return 1;
}

void print_version(const Options& options) {
  std::string version;
  try {
    version = load_engine(options)->version();
  } catch (const NoLibrary&) {  // the line says so by a null
  }
  std::fputs(version_text(version).c_str(), stdout);
}

Report work(const Options& options) {
  if (options.task == Task::graph) return run_graph(options);
  return options.task == Task::classify ? run_classify(options) : run_seq2seq(options);
}

// Runs a task in an out-dir that is ready; the report is the last thing to appear in it.
int run_task(const Options& options) {
  const std::string path = options.out_dir + "/report.json";
  std::string error;
  const int code = guarded([&] { write_file(path, report_text(options, work(options))); }, error);
  if (code == 0) return 0;
  std::string ignored;  // the disk may be full; the exit code tells of the failure anyway
  guarded([&] { write_file(path, failure_text(options, error)); }, ignored);
  return say(error, code);
}

}  // namespace

std::unique_ptr<Engine> load_engine(const Options& options) {
  return make_engine({options.threads, options.library, options.profile ? options.out_dir + "/profile" : ""});
}

void finish_report(Report& report, Engine& engine) {
  const Threads found = threads();
  report.threads_got = found.count;
  report.affinity_got = found.cpus;
  report.end = memory_use();
  const std::string profile = engine.finish_profile();
  report.profile = profile.substr(profile.rfind('/') + 1);
  report.engine_version = engine.version();
  report.facts = engine.facts();
}

int run(const std::vector<std::string>& words) {
  Options options;
  std::string error;
  const int code = guarded(
      [&] {
        options = parse_options(words);
        if (options.task == Task::help) std::fputs(usage(identity().program).c_str(), stderr);
        if (options.task == Task::version) print_version(options);
        if (options.task == Task::help || options.task == Task::version) return;
        make_folder(options.out_dir);
        remove_file(options.out_dir + "/report.json");
      },
      error);
  if (code != 0) return say(error, code);
  return options.task == Task::help || options.task == Task::version ? 0 : run_task(options);
}

}  // namespace tprune
