// ONNX Runtime behind engine.h, loaded at run time: its library exports versioned symbols, so that a program linked to
// one release would refuse every other.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "engine.h"
#include "failure.h"
#include "file.h"
#include "ort_abi.h"
#include "ort_profile.h"

namespace tprune {
namespace {

struct Kind {
  DType dtype;
  int code;  // ONNXTensorElementDataType
};

constexpr Kind kKinds[] = {
    {DType::float32, 1}, {DType::uint8, 2},   {DType::int8, 3},     {DType::int16, 5},    {DType::int32, 6},
    {DType::int64, 7},   {DType::boolean, 9}, {DType::float16, 10}, {DType::float64, 11},
};

// The library's functions, and checked calls to them.
class Library {
 public:
  explicit Library(const std::string& asked) {
    // Its Linux builds write a device id and an event queue into the home folder; only this, before loading, stops
    // them.
    ::setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    std::vector<std::string> names = {"libonnxruntime.so.1", "libonnxruntime.so"};
    const char* environment = std::getenv("TPRUNE_ORT_LIBRARY");
    if (!asked.empty()) {
      names = {asked};
    } else if (environment != nullptr && *environment != '\0') {
      names = {environment};
    }
    std::string why;
    for (const std::string& name : names) {
      void* handle = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays loaded until the process ends
      if (handle != nullptr) {
        open(handle, name);
        return;
      }
      if (why.empty()) why = ::dlerror();
    }
    throw NoLibrary("cannot load ONNX Runtime: " + why + "; give --library FILE or set TPRUNE_ORT_LIBRARY");
  }

  const std::string& version() const { return version_; }
  const ort::Api* operator->() const { return api_; }

  // Turns what a function returns into an exception when it is an error.
  void check(ort::Status* status, const std::string& what) const {
    if (status == nullptr) return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw Failed("ONNX Runtime cannot " + what + ": " + message);
  }

 private:
  void open(void* handle, const std::string& name) {
    const auto base = reinterpret_cast<const ort::ApiBase* (*)()>(::dlsym(handle, "OrtGetApiBase"));
    if (base == nullptr) throw NoLibrary("cannot load ONNX Runtime: " + name + " is another library");
    version_ = base()->GetVersionString();
    api_ = base()->GetApi(ort::kApiVersion);
    if (api_ == nullptr) throw NoLibrary("cannot load ONNX Runtime: " + name + " " + version_ + " is too old");
  }

  const ort::Api* api_ = nullptr;
  std::string version_;
};

// Owns one object of the library. `Release` is the table's member that frees it.
template <typename T, void (*ort::Api::*Release)(T*)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(const Library& library) : library_(&library) {}
  Owned(Owned&& other) noexcept : library_(other.library_), object_(std::exchange(other.object_, nullptr)) {}
  Owned& operator=(Owned&&) = delete;
  ~Owned() {
    if (object_ != nullptr) ((*library_).operator->()->*Release)(object_);
  }

  T* get() const { return object_; }
  T** to() { return &object_; }  // for the function that makes it

 private:
  const Library* library_ = nullptr;
  T* object_ = nullptr;
};

using Env = Owned<ort::Env, &ort::Api::ReleaseEnv>;
using MemoryInfo = Owned<ort::MemoryInfo, &ort::Api::ReleaseMemoryInfo>;
using Session = Owned<ort::Session, &ort::Api::ReleaseSession>;
using SessionOptions = Owned<ort::SessionOptions, &ort::Api::ReleaseSessionOptions>;
using ShapeInfo = Owned<ort::ShapeInfo, &ort::Api::ReleaseTensorTypeAndShapeInfo>;
using TypeInfo = Owned<ort::TypeInfo, &ort::Api::ReleaseTypeInfo>;
using Value = Owned<ort::Value, &ort::Api::ReleaseValue>;

struct OrtView : View {
  OrtView(const Library& library, const Buffer& viewed) : value(library), buffer(viewed) {}
  Value value;
  Buffer buffer;
};

// Element type and sizes of what a shape description says; sizes that vary are -1.
std::pair<DType, Dims> described(const Library& library, const ort::ShapeInfo* shape, const std::string& name) {
  int code = 0;
  std::size_t rank = 0;
  library.check(library->GetTensorElementType(shape, &code), "tell a type");
  library.check(library->GetDimensionsCount(shape, &rank), "tell a rank");
  std::vector<std::int64_t> sizes(rank);
  library.check(library->GetDimensions(shape, sizes.data(), rank), "tell a shape");
  const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return k.code == code; });
  if (kind == std::end(kKinds)) throw Failed("'" + name + "' has an element type that the runner does not know");
  Dims dims;
  for (std::int64_t size : sizes) dims.push_back(std::max<std::int64_t>(size, -1));
  return {kind->dtype, dims};
}

class OrtCall : public Call {
 public:
  OrtCall(const Library& library, Session session, std::vector<Port> inputs, std::vector<Port> outputs)
      : library_(library),
        session_(std::move(session)),
        input_ports_(std::move(inputs)),
        output_ports_(std::move(outputs)),
        inputs_(input_ports_.size()),
        bound_(output_ports_.size()),
        outputs_(output_ports_.size()) {
    for (const Port& port : input_ports_) input_names_.push_back(port.name.c_str());
    for (const Port& port : output_ports_) output_names_.push_back(port.name.c_str());
  }
  ~OrtCall() override { release_own(); }

  const std::vector<Port>& inputs() const override { return input_ports_; }
  const std::vector<Port>& outputs() const override { return output_ports_; }

  void set_input(std::size_t index, const View& view) override {
    inputs_[index] = static_cast<const OrtView&>(view).value.get();
  }

  void set_output(std::size_t index, const View& view) override {
    if (bound_[index] == nullptr && outputs_[index] != nullptr) library_->ReleaseValue(outputs_[index]);
    bound_[index] = static_cast<const OrtView*>(&view);
    outputs_[index] = bound_[index]->value.get();
  }

  void run() override {
    release_own();
    library_.check(library_->Run(session_.get(), nullptr, input_names_.data(), inputs_.data(), inputs_.size(),
                                 output_names_.data(), outputs_.size(), outputs_.data()),
                   "run the graph");
  }

  Buffer output(std::size_t index) override {
    if (bound_[index] != nullptr) return bound_[index]->buffer;
    ShapeInfo shape(library_);
    library_.check(library_->GetTensorTypeAndShape(outputs_[index], shape.to()), "tell a shape");
    const auto [dtype, dims] = described(library_, shape.get(), output_ports_[index].name);
    Buffer buffer{nullptr, dtype, dims};
    library_.check(library_->GetTensorMutableData(outputs_[index], &buffer.data), "give an output");
    return buffer;
  }

  const Session& session() const { return session_; }

 private:
  // Frees the outputs that the last run has allocated, so that the next one does so again.
  void release_own() {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (bound_[i] != nullptr || outputs_[i] == nullptr) continue;
      library_->ReleaseValue(outputs_[i]);
      outputs_[i] = nullptr;
    }
  }

  const Library& library_;
  Session session_;
  std::vector<Port> input_ports_;
  std::vector<Port> output_ports_;
  std::vector<const char*> input_names_;
  std::vector<const char*> output_names_;
  std::vector<const ort::Value*> inputs_;
  std::vector<const OrtView*> bound_;
  std::vector<ort::Value*> outputs_;  // of the bound view, or owned here
};

class OrtEngine : public Engine {
 public:
  explicit OrtEngine(const EngineSettings& settings) : settings_(settings), library_(settings.library) {}

  std::string version() const override { return library_.version(); }
  std::vector<std::pair<std::string, std::string>> facts() const override { return {{"providers", "cpu"}}; }
  bool binds_outputs() const override { return true; }

  std::unique_ptr<Call> open(const std::string& file, const std::string& method) override;
  std::unique_ptr<View> view(const Buffer& buffer) override;
  std::string finish_profile() override;

 private:
  struct Profiled {
    std::string method;
    const OrtCall* call;
  };

  void start();
  SessionOptions options(const std::string& method);
  Port port(const ort::Session* session, std::size_t index, bool input);
  std::vector<Port> ports(const ort::Session* session, bool input);

  EngineSettings settings_;
  Library library_;
  Env env_{library_};
  MemoryInfo memory_{library_};
  ort::Allocator* allocator_ = nullptr;  // the library's own
  std::vector<Profiled> profiled_;
};

void OrtEngine::start() {
  if (env_.get() != nullptr) return;
  library_.check(library_->CreateEnv(ort::kFatal, "tprune", env_.to()), "start");
  library_.check(library_->CreateCpuMemoryInfo(ort::kDeviceAllocator, ort::kDefaultMemory, memory_.to()), "start");
  library_.check(library_->GetAllocatorWithDefaultOptions(&allocator_), "start");
}

// The same as export/runtime.py's, so that the two loops can be compared.
SessionOptions OrtEngine::options(const std::string& method) {
  SessionOptions options(library_);
  library_.check(library_->CreateSessionOptions(options.to()), "make options");
  ort::SessionOptions* raw = options.get();
  library_.check(library_->SetIntraOpNumThreads(raw, settings_.threads), "set the threads");
  library_.check(library_->SetInterOpNumThreads(raw, 1), "set the threads");
  library_.check(library_->SetSessionExecutionMode(raw, ort::kSequential), "set the execution mode");
  library_.check(library_->SetSessionGraphOptimizationLevel(raw, ort::kAllOptimisations), "set the optimisations");
  library_.check(library_->SetSessionLogSeverityLevel(raw, ort::kFatal), "set the log level");
  if (!settings_.profile.empty()) {
    library_.check(library_->EnableProfiling(raw, (settings_.profile + "-" + method).c_str()), "profile");
  }
  return options;
}

std::unique_ptr<Call> OrtEngine::open(const std::string& file, const std::string& method) {
  start();
  file_bytes(file);  // says better than the library what is wrong with a path
  const SessionOptions options = this->options(method);
  Session session(library_);
  library_.check(library_->CreateSession(env_.get(), file.c_str(), options.get(), session.to()), "open " + file);
  std::vector<Port> inputs = ports(session.get(), true);
  std::vector<Port> outputs = ports(session.get(), false);
  auto call = std::make_unique<OrtCall>(library_, std::move(session), std::move(inputs), std::move(outputs));
  if (!settings_.profile.empty()) profiled_.push_back({method, call.get()});
  return call;
}

std::vector<Port> OrtEngine::ports(const ort::Session* session, bool input) {
  std::size_t count = 0;
  library_.check((input ? library_->SessionGetInputCount : library_->SessionGetOutputCount)(session, &count),
                 "count the ports");
  std::vector<Port> ports;
  for (std::size_t i = 0; i < count; ++i) ports.push_back(port(session, i, input));
  return ports;
}

Port OrtEngine::port(const ort::Session* session, std::size_t index, bool input) {
  const auto get_name = input ? library_->SessionGetInputName : library_->SessionGetOutputName;
  const auto get_type = input ? library_->SessionGetInputTypeInfo : library_->SessionGetOutputTypeInfo;
  char* raw = nullptr;
  library_.check(get_name(session, index, allocator_, &raw), "name a port");
  Port port{raw, DType::float32, {}};
  allocator_->Free(allocator_, raw);
  TypeInfo type(library_);
  library_.check(get_type(session, index, type.to()), "tell a port's type");
  const ort::ShapeInfo* shape = nullptr;  // belongs to `type`
  library_.check(library_->CastTypeInfoToTensorInfo(type.get(), &shape), "tell a port's type");
  if (shape == nullptr) throw Failed("'" + port.name + "' is not a tensor");
  std::tie(port.dtype, port.dims) = described(library_, shape, port.name);
  return port;
}

std::unique_ptr<View> OrtEngine::view(const Buffer& buffer) {
  start();
  const auto kind =
      std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return k.dtype == buffer.dtype; });
  auto view = std::make_unique<OrtView>(library_, buffer);
  const std::size_t bytes = tensor_bytes(buffer.dtype, buffer.dims, static_cast<std::size_t>(-1));
  library_.check(library_->CreateTensorWithDataAsOrtValue(memory_.get(), buffer.data, bytes, buffer.dims.begin(),
                                                          buffer.dims.rank(), kind->code, view->value.to()),
                 "describe memory");
  return view;
}

std::string OrtEngine::finish_profile() {
  if (settings_.profile.empty()) return "";
  ProfileMerger merger;
  for (const Profiled& profiled : profiled_) {
    char* raw = nullptr;
    library_.check(library_->SessionEndProfiling(profiled.call->session().get(), allocator_, &raw), "profile");
    const std::string path = raw;
    allocator_->Free(allocator_, raw);
    merger.add(profiled.method, path);
    remove_file(path);
  }
  const std::string path = settings_.profile + ".json";
  write_file(path, merger.text());
  return path;
}

}  // namespace

Identity identity() {
  return {"tprune-ort", "onnxruntime"};
}

std::unique_ptr<Engine> make_engine(const EngineSettings& settings) {
  return std::make_unique<OrtEngine>(settings);
}

}  // namespace tprune
