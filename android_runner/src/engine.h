// The border between the runner and an inference engine: open a program, describe its methods, bind memory, run.
//
// Each executable holds exactly one engine: engine_ort.cpp (tprune-ort) or engine_et.cpp (tprune-et) defines the two
// free functions at the end of this file and nothing else that is visible. Everything else in src/ is common to both.
//
//     std::unique_ptr<Engine> engine = make_engine(settings);
//     std::unique_ptr<Call> step = engine->open("m/model.pte", "decoder_step");
//     std::unique_ptr<View> token = engine->view({&id, DType::int64, {1}});
//     step->set_input(0, *token);
//     step->run();                                   // reads `id` as it is now
//     const Buffer logits = step->output(0);
//
// Rules for an implementation
// * Errors are exceptions: Failed for everything the engine reports (one line, naming the engine, the file or the
// method
//   and the engine's own words), NoLibrary from make_engine only. None may leave a callback that C code calls.
// * `view`, `open` and the constructors may allocate. `set_input`, `set_output`, `run` and `output` are called in the
// timed
//   region: they must not allocate, print or touch files of their own accord (what the engine does inside is its
//   business).
// * Nothing is shared between threads: one thread calls all of it.
// * Order of destruction: views and calls first, then the engine. Memory of a Buffer outlives every view of it.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensor.h"

namespace tprune {

// One input or output of a method, as the program file describes it.
struct Port {
  std::string name;  // empty when the engine knows ports by place only (ExecuTorch)
  DType dtype = DType::float32;
  Dims dims;  // -1: varies. An engine that knows upper bounds only (ExecuTorch) gives the bounds.
};

// An engine's own description of a Buffer (an OrtValue, a TensorImpl), made once and bound as often as wanted.
class View {
 public:
  View() = default;
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  virtual ~View() = default;
};

// One method of an opened program.
class Call {
 public:
  Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  virtual ~Call() = default;

  virtual const std::vector<Port>& inputs() const = 0;
  virtual const std::vector<Port>& outputs() const = 0;

  // Binds input `index` until it is bound to another view; the view must live until then. Its contents are those at the
  // time of `run`, so an engine that copies its inputs does so in `run`. `index` is below inputs().size(); dtype and
  // dims have been checked by the caller against inputs().
  virtual void set_input(std::size_t index, const View& view) = 0;

  // Lets output `index` be written to the view's memory, which has exactly the dims that the run will produce. Called
  // only where Engine::binds_outputs() is true.
  virtual void set_output(std::size_t index, const View& view) = 0;

  // Executes once with every input bound. This call and nothing else is what the report calls `run_ns`.
  virtual void run() = 0;

  // Where output `index` of the last run lies, with its dims: the bound view's memory, or the engine's own, which stays
  // valid until the next run of any method of the same program.
  virtual Buffer output(std::size_t index) = 0;
};

struct EngineSettings {
  int threads = 1;      // that compute, the caller's included; at least 1
  std::string library;  // file to load the engine from; empty: by the loader's own search (ExecuTorch ignores it)
  std::string profile;  // path without extension for profiles, say "out/profile"; empty: no profiling
};

class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;

  virtual std::string version() const = 0;

  // What decides a result and is not the version: backends, kernels, ... (name -> value), for the report. Called at the
  // end.
  virtual std::vector<std::pair<std::string, std::string>> facts() const = 0;

  // True: set_output works, and seq2seq writes caches in place. False: outputs are the engine's own memory.
  virtual bool binds_outputs() const = 0;

  // Opens `method` of a program file. ONNX files have one graph: ONNX Runtime ignores the name. An engine whose file
  // holds several methods loads the file once and gives one Call for each. Everything that `load` costs happens here.
  virtual std::unique_ptr<Call> open(const std::string& file, const std::string& method) = 0;

  // Describes memory. Throws Failed for a dtype that the engine does not have.
  virtual std::unique_ptr<View> view(const Buffer& buffer) = 0;

  // Ends profiling and returns the path of the one file written, "" when profiling was off. Called once, after the last
  // run.
  virtual std::string finish_profile() = 0;
};

// Names that do not need the library: {"tprune-ort", "onnxruntime"}. `engine` is also Manifest.runtime.
struct Identity {
  const char* program;
  const char* engine;
};

Identity identity();
std::unique_ptr<Engine> make_engine(const EngineSettings& settings);

}  // namespace tprune
