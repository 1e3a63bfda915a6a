#include "tensor.h"

#include <algorithm>

#include "failure.h"

namespace tprune {
namespace {

struct Kind {
  DType dtype;
  const char* name;
  std::size_t bytes;
};

constexpr Kind kKinds[] = {
    {DType::float32, "float32", 4}, {DType::float64, "float64", 8}, {DType::float16, "float16", 2},
    {DType::int64, "int64", 8},     {DType::int32, "int32", 4},     {DType::int16, "int16", 2},
    {DType::int8, "int8", 1},       {DType::uint8, "uint8", 1},     {DType::boolean, "bool", 1},
};

const Kind& kind_of(DType dtype) {
  return *std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& kind) { return kind.dtype == dtype; });
}

}  // namespace

std::size_t item_bytes(DType dtype) {
  return kind_of(dtype).bytes;
}

const char* name_of(DType dtype) {
  return kind_of(dtype).name;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return kind.dtype;
  }
  return std::nullopt;
}

void Dims::push_back(std::int64_t size) {
  if (rank_ == kMost) throw Failed("a tensor has more than " + std::to_string(kMost) + " dimensions");
  sizes_[rank_++] = size;
}

bool Dims::operator==(const Dims& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::string Dims::text() const {
  std::string text = "[";
  for (std::int64_t size : *this) {
    if (text.size() > 1) text += ", ";
    text += size < 0 ? "?" : std::to_string(size);
  }
  return text + "]";
}

std::size_t tensor_bytes(DType dtype, const Dims& dims, std::size_t most) {
  std::size_t bytes = item_bytes(dtype);
  for (std::int64_t size : dims) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes)) {
      throw BadInput("a tensor of " + dims.text() + " is not possible");
    }
  }
  if (bytes > most) {
    throw BadInput("a tensor of " + dims.text() + " has " + std::to_string(bytes) + " bytes; the most is " +
                   std::to_string(most));
  }
  return bytes;
}

}  // namespace tprune
