#include "memory.h"

#include <cstdint>
#include <new>

namespace tprune {
namespace {

constexpr std::size_t kLine = 64;

}  // namespace

Buffer Memory::tensor(DType dtype, const Dims& dims) {
  const std::size_t bytes = tensor_bytes(dtype, dims, kMost - taken_);
  taken_ += bytes;
  blocks_.emplace_back(std::calloc(1, bytes + kLine));
  if (!blocks_.back()) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(blocks_.back().get());
  return {static_cast<char*>(blocks_.back().get()) + (kLine - address % kLine), dtype, dims};
}

}  // namespace tprune
