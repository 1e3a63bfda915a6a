#include <algorithm>
#include <map>

#include "failure.h"
#include "memory.h"
#include "npy.h"
#include "task.h"

namespace tprune {
namespace {

// A view on every input, read from its file and checked against what the graph says of it.
std::vector<std::unique_ptr<View>> bind_inputs(const Options& options, Engine& engine, Call& call, Memory& memory) {
  const std::vector<Port>& ports = call.inputs();
  std::vector<std::unique_ptr<View>> views(ports.size());
  for (const auto& [name, file] : options.inputs) {
    // An engine without names calls its inputs input_0, input_1, ...
    std::size_t place = 0;
    const auto named = [&, wanted = name](std::size_t i) {
      return wanted == (ports[i].name.empty() ? "input_" + std::to_string(i) : ports[i].name);
    };
    while (place < ports.size() && !named(place)) ++place;
    if (place == ports.size()) throw BadInput("--in " + name + ": the graph has no such input");
    if (views[place]) throw BadInput("--in " + name + " is given twice");
    const Port& port = ports[place];
    const Buffer array = read_npy(file, memory);
    bool same = array.dtype == port.dtype && array.dims.rank() == port.dims.rank();
    for (std::size_t axis = 0; same && axis < port.dims.rank(); ++axis) {
      same = port.dims[axis] < 0 || port.dims[axis] == array.dims[axis];
    }
    if (!same) {
      throw BadInput("--in " + name + ": " + file + " is " + name_of(array.dtype) + " " + array.dims.text() +
                     ", the graph takes " + name_of(port.dtype) + " " + port.dims.text());
    }
    views[place] = engine.view(array);
    call.set_input(place, *views[place]);
  }
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (!views[i]) throw BadInput("the graph's input '" + ports[i].name + "' is not given; use --in NAME=FILE.npy");
  }
  return views;
}

// A name that is safe as a file's: everything unusual becomes '_'.
std::string plain(const std::string& name) {
  std::string safe = name;
  for (char& c : safe) {
    const bool usual = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-';
    if (!usual) c = '_';
  }
  return safe.substr(0, 100);
}

std::vector<OutputFile> write_outputs(const Options& options, Call& call) {
  std::vector<OutputFile> files;
  std::map<std::string, int> taken;
  for (std::size_t i = 0; i < call.outputs().size(); ++i) {
    const std::string& given = call.outputs()[i].name;
    const std::string name = given.empty() ? "output_" + std::to_string(i) : given;
    std::string file = plain(name);
    if (const int copies = taken[file]++; copies > 0) file += "-" + std::to_string(copies + 1);
    const Buffer array = call.output(i);
    write_npy(options.out_dir + "/" + file + ".npy", array);
    files.push_back({name, array.dtype, array.dims, file + ".npy"});
  }
  return files;
}

}  // namespace

Report run_graph(const Options& options) {
  Report report;
  report.start = memory_use();
  if (!options.affinity.empty()) set_affinity(options.affinity);

  const std::int64_t begin = now_ns();
  const std::unique_ptr<Engine> engine = load_engine(options);
  const std::unique_ptr<Call> call = engine->open(options.model, options.method);
  Memory memory;
  const std::vector<std::unique_ptr<View>> inputs = bind_inputs(options, *engine, *call, memory);
  report.load_ns = now_ns() - begin;
  report.loaded = memory_use();

  const auto once = [&](std::size_t) {
    Sample sample;
    const std::int64_t start = now_ns();
    call->run();
    sample.run_ns = now_ns() - start;
    sample.total_ns = sample.run_ns;
    return sample;
  };
  const Amount amount{static_cast<std::size_t>(options.iterations), options.min_ms * 1'000'000};
  report.measured = measure(options, amount, once, [](std::size_t) {});
  report.tensors = write_outputs(options, *call);
  finish_report(report, *engine);
  return report;
}

}  // namespace tprune
