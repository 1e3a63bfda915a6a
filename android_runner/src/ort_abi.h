// The part of ONNX Runtime's C interface that the runner calls, by place in its table of functions, so that neither a
// header of ONNX Runtime nor the library itself is needed to build. The table only ever grows at its end, by ONNX
// Runtime's own promise: what is below has been at its place since 2020. Tests run it with the installed release.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tprune::ort {

constexpr std::uint32_t kApiVersion = 11;  // of release 1.11, 2022: later libraries know it, and that is all it is for

struct Env;
struct Status;
struct MemoryInfo;
struct Session;
struct Value;
struct RunOptions;
struct TypeInfo;
struct ShapeInfo;
struct SessionOptions;

struct Allocator {
  std::uint32_t version;
  void* (*Alloc)(Allocator*, std::size_t);
  void (*Free)(Allocator*, void*);
};

// Enumerations of the C interface are plain integers here.
constexpr int kFatal = 4;              // OrtLoggingLevel: what fails is told by its status, once
constexpr int kSequential = 0;         // ExecutionMode
constexpr int kAllOptimisations = 99;  // GraphOptimizationLevel
constexpr int kDeviceAllocator = 0;    // OrtAllocatorType
constexpr int kDefaultMemory = 0;      // OrtMemType

struct Api {
  void* unused_0[2];
  const char* (*GetErrorMessage)(const Status*);
  Status* (*CreateEnv)(int level, const char* name, Env**);
  void* unused_4[3];
  Status* (*CreateSession)(const Env*, const char* path, const SessionOptions*, Session**);
  void* unused_8[1];
  Status* (*Run)(Session*, const RunOptions*, const char* const* input_names, const Value* const* inputs,
                 std::size_t input_count, const char* const* output_names, std::size_t output_count, Value** outputs);
  Status* (*CreateSessionOptions)(SessionOptions**);
  void* unused_11[2];
  Status* (*SetSessionExecutionMode)(SessionOptions*, int mode);
  Status* (*EnableProfiling)(SessionOptions*, const char* prefix);
  void* unused_15[7];
  Status* (*SetSessionLogSeverityLevel)(SessionOptions*, int level);
  Status* (*SetSessionGraphOptimizationLevel)(SessionOptions*, int level);
  Status* (*SetIntraOpNumThreads)(SessionOptions*, int);
  Status* (*SetInterOpNumThreads)(SessionOptions*, int);
  void* unused_26[4];
  Status* (*SessionGetInputCount)(const Session*, std::size_t*);
  Status* (*SessionGetOutputCount)(const Session*, std::size_t*);
  void* unused_32[1];
  Status* (*SessionGetInputTypeInfo)(const Session*, std::size_t, TypeInfo**);
  Status* (*SessionGetOutputTypeInfo)(const Session*, std::size_t, TypeInfo**);
  void* unused_35[1];
  Status* (*SessionGetInputName)(const Session*, std::size_t, Allocator*, char**);
  Status* (*SessionGetOutputName)(const Session*, std::size_t, Allocator*, char**);
  void* unused_38[11];
  Status* (*CreateTensorWithDataAsOrtValue)(const MemoryInfo*, void* data, std::size_t bytes, const std::int64_t* dims,
                                            std::size_t rank, int type, Value**);
  void* unused_50[1];
  Status* (*GetTensorMutableData)(Value*, void**);
  void* unused_52[3];
  Status* (*CastTypeInfoToTensorInfo)(const TypeInfo*, const ShapeInfo**);
  void* unused_56[4];
  Status* (*GetTensorElementType)(const ShapeInfo*, int*);
  Status* (*GetDimensionsCount)(const ShapeInfo*, std::size_t*);
  Status* (*GetDimensions)(const ShapeInfo*, std::int64_t*, std::size_t);
  void* unused_63[2];
  Status* (*GetTensorTypeAndShape)(const Value*, ShapeInfo**);
  void* unused_66[3];
  Status* (*CreateCpuMemoryInfo)(int allocator, int memory, MemoryInfo**);
  void* unused_70[8];
  Status* (*GetAllocatorWithDefaultOptions)(Allocator**);
  void* unused_79[13];
  void (*ReleaseEnv)(Env*);
  void (*ReleaseStatus)(Status*);
  void (*ReleaseMemoryInfo)(MemoryInfo*);
  void (*ReleaseSession)(Session*);
  void (*ReleaseValue)(Value*);
  void* unused_97[1];
  void (*ReleaseTypeInfo)(TypeInfo*);
  void (*ReleaseTensorTypeAndShapeInfo)(ShapeInfo*);
  void (*ReleaseSessionOptions)(SessionOptions*);
  void* unused_101[9];
  Status* (*SessionEndProfiling)(Session*, Allocator*, char**);
};

struct ApiBase {
  const Api* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

// The places, as numbers, so that a slip in the counts above does not compile.
#define TPRUNE_AT(name, place) static_assert(offsetof(Api, name) == (place) * sizeof(void*), #name)
TPRUNE_AT(GetErrorMessage, 2);
TPRUNE_AT(CreateEnv, 3);
TPRUNE_AT(CreateSession, 7);
TPRUNE_AT(Run, 9);
TPRUNE_AT(CreateSessionOptions, 10);
TPRUNE_AT(SetSessionExecutionMode, 13);
TPRUNE_AT(EnableProfiling, 14);
TPRUNE_AT(SetSessionLogSeverityLevel, 22);
TPRUNE_AT(SetSessionGraphOptimizationLevel, 23);
TPRUNE_AT(SetIntraOpNumThreads, 24);
TPRUNE_AT(SetInterOpNumThreads, 25);
TPRUNE_AT(SessionGetInputCount, 30);
TPRUNE_AT(SessionGetOutputCount, 31);
TPRUNE_AT(SessionGetInputTypeInfo, 33);
TPRUNE_AT(SessionGetOutputTypeInfo, 34);
TPRUNE_AT(SessionGetInputName, 36);
TPRUNE_AT(SessionGetOutputName, 37);
TPRUNE_AT(CreateTensorWithDataAsOrtValue, 49);
TPRUNE_AT(GetTensorMutableData, 51);
TPRUNE_AT(CastTypeInfoToTensorInfo, 55);
TPRUNE_AT(GetTensorElementType, 60);
TPRUNE_AT(GetDimensionsCount, 61);
TPRUNE_AT(GetDimensions, 62);
TPRUNE_AT(GetTensorTypeAndShape, 65);
TPRUNE_AT(CreateCpuMemoryInfo, 69);
TPRUNE_AT(GetAllocatorWithDefaultOptions, 78);
TPRUNE_AT(ReleaseEnv, 92);
TPRUNE_AT(ReleaseStatus, 93);
TPRUNE_AT(ReleaseMemoryInfo, 94);
TPRUNE_AT(ReleaseSession, 95);
TPRUNE_AT(ReleaseValue, 96);
TPRUNE_AT(ReleaseTypeInfo, 98);
TPRUNE_AT(ReleaseTensorTypeAndShapeInfo, 99);
TPRUNE_AT(ReleaseSessionOptions, 100);
TPRUNE_AT(SessionEndProfiling, 110);
#undef TPRUNE_AT

}  // namespace tprune::ort
