// ExecuTorch behind engine.h, linked to the libraries of its wheel; the C++ interface is that release's and no other's.
#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/platform.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

#include "engine.h"
#include "failure.h"
#include "file.h"
#include "memory.h"

// In the file for those who want to read its release without running it: bench/runner/build.py.
__asm__(".ident \"executorch " TPRUNE_ET_VERSION "\"");

// Exported by libexecutorch_threadpool.so; the wheel ships no header for it.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  std::size_t get_thread_count() const;
  void _unsafe_reset_threadpool(std::uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace tprune {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::etdump::ETDumpGen;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::extension::threadpool::get_threadpool;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Method;
using executorch::runtime::MethodMeta;
using executorch::runtime::Program;
using executorch::runtime::Result;
using executorch::runtime::TensorInfo;

struct Kind {
  DType dtype;
  ScalarType type;
};

constexpr Kind kKinds[] = {
    {DType::float32, ScalarType::Float}, {DType::float64, ScalarType::Double}, {DType::float16, ScalarType::Half},
    {DType::int64, ScalarType::Long},    {DType::int32, ScalarType::Int},      {DType::int16, ScalarType::Short},
    {DType::int8, ScalarType::Char},     {DType::uint8, ScalarType::Byte},     {DType::boolean, ScalarType::Bool},
};

// The first complaint since the last call of `check`. ExecuTorch tells causes to its log only; the rest of it is noise.
std::string& complaint() {
  static std::string text;
  return text;
}

void keep_complaint(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, std::size_t,
                    const char* message, std::size_t length) {
  if (complaint().empty() && (level == et_pal_log_level_t::kError || level == et_pal_log_level_t::kFatal)) {
    complaint().assign(message, length);
    // A damaged program is quoted as it is.
    std::replace_if(complaint().begin(), complaint().end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  }
}

// Throws unless `error` is none; `what` and `where` are what could not be done ("run ", "encoder").
void check(Error error, const char* what, const std::string& where) {
  const std::string why = std::exchange(complaint(), {});
  if (error == Error::Ok) return;
  throw Failed("ExecuTorch cannot " + (what + where) + ": " + executorch::runtime::to_string(error) +
               (why.empty() ? "" : " (" + why + ")"));
}

template <typename T>
T& checked(Result<T>& result, const char* what, const std::string& where) {
  check(result.error(), what, where);
  return result.get();
}

ScalarType type_of(DType dtype) {
  return std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return k.dtype == dtype; })->type;
}

DType dtype_of(ScalarType type) {
  const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return k.type == type; });
  if (kind == std::end(kKinds)) throw Failed("ExecuTorch: a tensor has an element type that the runner does not know");
  return kind->dtype;
}

template <typename Sizes>
Dims dims_of(const Sizes& sizes) {
  Dims dims;
  for (const auto size : sizes) dims.push_back(size);
  return dims;
}

struct EtView : View {
  explicit EtView(const Buffer& viewed)
      : buffer(viewed),
        tensor(executorch::extension::from_blob(viewed.data, {viewed.dims.begin(), viewed.dims.end()},
                                                type_of(viewed.dtype))),
        value(tensor),
        bytes(tensor->nbytes()) {}
  Buffer buffer;
  TensorPtr tensor;
  EValue value;
  std::size_t bytes;
};

class EtCall : public Call {
 public:
  EtCall(Method& method, std::string name) : method_(method), name_(std::move(name)) {
    const MethodMeta meta = method.method_meta();
    for (std::size_t i = 0; i < meta.num_inputs(); ++i) {
      Result<TensorInfo> info = meta.input_tensor_meta(i);
      inputs_.push_back(port(checked(info, "describe an input of ", name_)));
      planned_.push_back(info->is_memory_planned());
    }
    copied_.resize(inputs_.size());
    for (std::size_t i = 0; i < meta.num_outputs(); ++i) {
      Result<TensorInfo> info = meta.output_tensor_meta(i);
      outputs_.push_back(port(checked(info, "describe an output of ", name_)));
      places_.push_back({info->nbytes(), info->is_memory_planned(), {}, nullptr});
      if (!info->is_memory_planned()) use_own(i);
    }
  }

  const std::vector<Port>& inputs() const override { return inputs_; }
  const std::vector<Port>& outputs() const override { return outputs_; }

  void set_input(std::size_t index, const View& view) override {
    const auto& bound = static_cast<const EtView&>(view);
    if (planned_[index]) {  // the program copies it
      copied_[index] = &bound;
    } else {
      check(method_.set_input(bound.value, index), "take an input of ", name_);
    }
  }

  // A program writes up to the bound of an output's sizes. Where a view has less room, the output is copied there.
  void set_output(std::size_t index, const View& view) override {
    Place& place = places_[index];
    place.view = &static_cast<const EtView&>(view);
    if (place.planned) return;
    if (place.view->bytes == place.most) {
      set_memory(index, place.view->buffer.data);
    } else {
      use_own(index);
    }
  }

  void run() override {
    for (std::size_t i = 0; i < copied_.size(); ++i) {
      if (copied_[i] != nullptr) check(method_.set_input(copied_[i]->value, i), "take an input of ", name_);
    }
    check(method_.execute(), "run ", name_);
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].view != nullptr) deliver(i);
    }
  }

  Buffer output(std::size_t index) override {
    const Tensor& tensor = method_.get_output(index).toTensor();
    return {tensor.mutable_data_ptr(), dtype_of(tensor.scalar_type()), dims_of(tensor.sizes())};
  }

 private:
  struct Place {       // where an output goes
    std::size_t most;  // bytes that it may have
    bool planned;      // the program has memory for it
    Buffer own;
    const EtView* view;
  };

  static Port port(const TensorInfo& info) { return {"", dtype_of(info.scalar_type()), dims_of(info.sizes())}; }

  void set_memory(std::size_t index, void* data) {
    check(method_.set_output_data_ptr(data, places_[index].most, index), "place an output of ", name_);
  }

  void use_own(std::size_t index) {
    Buffer& own = places_[index].own;
    if (own.data == nullptr) own = memory_.tensor(outputs_[index].dtype, outputs_[index].dims);
    set_memory(index, own.data);
  }

  void deliver(std::size_t index) {
    const EtView& view = *places_[index].view;
    const Tensor& tensor = method_.get_output(index).toTensor();
    const auto sizes = tensor.sizes();
    if (!std::equal(sizes.begin(), sizes.end(), view.buffer.dims.begin(), view.buffer.dims.end())) {
      throw Failed("output " + std::to_string(index) + " of " + name_ + " came as " + dims_of(sizes).text() +
                   " instead of " + view.buffer.dims.text());
    }
    if (tensor.const_data_ptr() != view.buffer.data) std::memcpy(view.buffer.data, tensor.const_data_ptr(), view.bytes);
  }

  Method& method_;
  std::string name_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  std::vector<bool> planned_;
  std::vector<const EtView*> copied_;
  std::vector<Place> places_;
  Memory memory_;
};

class EtEngine : public Engine {
 public:
  explicit EtEngine(const EngineSettings& settings) : settings_(settings) {
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(keep_complaint, __FILE__));
    get_threadpool()->_unsafe_reset_threadpool(static_cast<std::uint32_t>(settings.threads));
  }

  std::string version() const override { return TPRUNE_ET_VERSION; }
  bool binds_outputs() const override { return true; }
  std::vector<std::pair<std::string, std::string>> facts() const override;
  std::unique_ptr<Call> open(const std::string& file, const std::string& method) override;
  std::unique_ptr<View> view(const Buffer& buffer) override { return std::make_unique<EtView>(buffer); }
  std::string finish_profile() override;

 private:
  Module& module(const std::string& file);

  EngineSettings settings_;
  std::map<std::string, std::unique_ptr<Module>> modules_;  // by file
  ETDumpGen* trace_ = nullptr;                              // of the first module, which owns it
};

std::vector<std::pair<std::string, std::string>> EtEngine::facts() const {
  std::string backends;
  for (std::size_t i = 0; i < executorch::runtime::get_num_registered_backends(); ++i) {
    const Result<const char*> name = executorch::runtime::get_backend_name(i);
    if (name.ok()) backends += (backends.empty() ? "" : ",") + std::string(name.get());
  }
  return {{"backends", backends},
          {"kernels", std::to_string(executorch::runtime::get_registered_kernels().size())},
          {"pool_threads", std::to_string(get_threadpool()->get_thread_count())}};
}

Module& EtEngine::module(const std::string& file) {
  std::unique_ptr<Module>& found = modules_[file];
  if (found != nullptr) return *found;
  file_bytes(file);  // says better than the library what is wrong with a path
  std::unique_ptr<ETDumpGen> trace;
  if (!settings_.profile.empty() && trace_ == nullptr) {
    trace = std::make_unique<ETDumpGen>();
    trace_ = trace.get();
  }
  found = std::make_unique<Module>(file, Module::LoadMode::Mmap, std::move(trace));
  check(found->load(Program::Verification::InternalConsistency), "open ", file);
  return *found;
}

std::unique_ptr<Call> EtEngine::open(const std::string& file, const std::string& method) {
  Module& opened = module(file);
  const std::string where = method + " of " + file;
  Result<MethodMeta> meta = opened.method_meta(method);
  checked(meta, "find the method ", where);
  for (std::size_t i = 0, left = Memory::kMost; i < meta->num_memory_planned_buffers(); ++i) {
    Result<std::int64_t> size = meta->memory_planned_buffer_size(i);
    const auto bytes = static_cast<std::size_t>(checked(size, "describe the memory of ", where));
    if (bytes > left) throw Failed("ExecuTorch cannot load the method " + where + ": it wants too much memory");
    left -= bytes;
  }
  check(opened.load_method(method), "load the method ", where);
  Result<Method*> loaded = opened.method(method);
  return std::make_unique<EtCall>(*checked(loaded, "find the method ", method), method);
}

std::string EtEngine::finish_profile() {
  if (trace_ == nullptr) return "";
  const executorch::etdump::ETDumpResult dump = trace_->get_etdump_data();
  const std::string path = settings_.profile + ".etdp";
  const std::unique_ptr<void, decltype(&std::free)> owned(dump.buf, std::free);
  if (dump.buf == nullptr) throw Failed("ExecuTorch gave no profile");
  write_file(path, {static_cast<const char*>(dump.buf), dump.size});
  return path;
}

}  // namespace

Identity identity() {
  return {"tprune-et", "executorch"};
}

std::unique_ptr<Engine> make_engine(const EngineSettings& settings) {
  return std::make_unique<EtEngine>(settings);
}

}  // namespace tprune
