// An engine that computes nothing sensible but keeps every rule of engine.h, for fuzzing what surrounds it. It reads
// all of its inputs and writes all of its outputs, so that a wrong size is seen by the sanitizers.
//
// Its programs are text, one port a line: `in token int64 -1`, `out logits float32 -1 17`; -1 varies.
// With `--library rows` its outputs are its own memory, as ExecuTorch's are.
#include <cstring>
#include <sstream>

#include "engine.h"
#include "failure.h"
#include "file.h"
#include "memory.h"

namespace tprune {
namespace {

struct StubView : View {
  explicit StubView(const Buffer& viewed) : buffer(viewed) {}
  Buffer buffer;
};

// A legal size in a mutated program may still be one that would take minutes to fill.
constexpr std::size_t kMostBytes = 1 << 24;

std::size_t bytes_of(const Buffer& buffer) {
  return tensor_bytes(buffer.dtype, buffer.dims, kMostBytes);
}

bool fits(const Dims& dims, const Dims& wanted) {
  if (dims.rank() != wanted.rank()) return false;
  for (std::size_t axis = 0; axis < dims.rank(); ++axis) {
    if (wanted[axis] >= 0 && dims[axis] != wanted[axis]) return false;
  }
  return true;
}

class StubCall : public Call {
 public:
  StubCall(const std::string& file, const std::string& program) {
    std::istringstream lines(program);
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string side, name, type;
      words >> side >> name >> type;
      const std::optional<DType> dtype = dtype_named(type);
      if ((side != "in" && side != "out") || !dtype) throw Failed(file + " is no program");
      Port port{name, *dtype, {}};
      std::int64_t size = 0;
      while (words >> size) port.dims.push_back(size);
      (side == "in" ? input_ports_ : output_ports_).push_back(port);
    }
    inputs_.resize(input_ports_.size());
    outputs_.resize(output_ports_.size());
    bound_.resize(output_ports_.size());
  }

  const std::vector<Port>& inputs() const override { return input_ports_; }
  const std::vector<Port>& outputs() const override { return output_ports_; }

  void set_input(std::size_t index, const View& view) override {
    inputs_.at(index) = &static_cast<const StubView&>(view).buffer;
  }

  void set_output(std::size_t index, const View& view) override {
    bound_.at(index) = &static_cast<const StubView&>(view).buffer;
  }

  void run() override {
    unsigned sum = 17;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (inputs_[i] == nullptr) throw Failed("input '" + input_ports_[i].name + "' is not bound");
      if (!fits(inputs_[i]->dims, input_ports_[i].dims))
        throw Failed("input '" + input_ports_[i].name + "' does not fit");
      const auto* bytes = static_cast<const unsigned char*>(inputs_[i]->data);
      const std::size_t count = bytes_of(*inputs_[i]);
      for (std::size_t k = 0; k < count; ++k) sum = sum * 31 + bytes[k];
    }
    for (std::size_t i = 0; i < output_ports_.size(); ++i) fill(i, sum);
  }

  Buffer output(std::size_t index) override { return outputs_.at(index); }

 private:
  void fill(std::size_t index, unsigned& sum) {
    Dims dims = output_ports_[index].dims;
    for (std::size_t axis = 0; axis < dims.rank(); ++axis) {
      if (dims[axis] >= 0) continue;
      const Dims& first = inputs_.empty() ? Dims{1} : inputs_[0]->dims;
      dims[axis] = first.rank() == 0 ? 1 : first[axis == 0 ? 0 : first.rank() - 1];
    }
    if (bound_[index] != nullptr) {
      outputs_[index] = *bound_[index];
      if (!fits(bound_[index]->dims, output_ports_[index].dims)) throw Failed("output does not fit");
    } else if (outputs_[index].data == nullptr || !(outputs_[index].dims == dims)) {
      tensor_bytes(output_ports_[index].dtype, dims, kMostBytes);  // throws when it would be too large
      outputs_[index] = memory_.tensor(output_ports_[index].dtype, dims);
    }
    auto* bytes = static_cast<unsigned char*>(outputs_[index].data);
    const std::size_t count = bytes_of(outputs_[index]);
    for (std::size_t k = 0; k < count; ++k) {
      sum = sum * 1664525 + 1013904223;
      bytes[k] = k % 4 == 3 ? 0x3f : static_cast<unsigned char>(sum >> 24);  // as a float: near 1
    }
  }

  std::vector<Port> input_ports_;
  std::vector<Port> output_ports_;
  std::vector<const Buffer*> inputs_;
  std::vector<const Buffer*> bound_;
  std::vector<Buffer> outputs_;
  Memory memory_;
};

class StubEngine : public Engine {
 public:
  explicit StubEngine(const EngineSettings& settings) : binds_(settings.library != "rows") {}

  std::string version() const override { return "0"; }
  std::vector<std::pair<std::string, std::string>> facts() const override { return {}; }
  bool binds_outputs() const override { return binds_; }

  std::unique_ptr<Call> open(const std::string& file, const std::string&) override {
    return std::make_unique<StubCall>(file, read_file(file, 1 << 20));
  }

  std::unique_ptr<View> view(const Buffer& buffer) override { return std::make_unique<StubView>(buffer); }
  std::string finish_profile() override { return ""; }

 private:
  bool binds_;
};

}  // namespace

Identity identity() {
  return {"tprune-fuzz", "onnxruntime"};
}

std::unique_ptr<Engine> make_engine(const EngineSettings& settings) {
  return std::make_unique<StubEngine>(settings);
}

}  // namespace tprune
