// What a tensor is to the runner: an element type, sizes, and memory that somebody owns.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace tprune {

enum class DType : std::uint8_t { float32, float64, float16, int64, int32, int16, int8, uint8, boolean };

std::size_t item_bytes(DType dtype);
const char* name_of(DType dtype);  // as numpy says it: "float32", "bool"
std::optional<DType> dtype_named(std::string_view name);

// The sizes of a tensor, outermost first; no heap. In a Port a size of -1 varies.
class Dims {
 public:
  static constexpr std::size_t kMost = 8;

  Dims() = default;
  Dims(std::initializer_list<std::int64_t> sizes) {  // at most kMost
    for (std::int64_t size : sizes) push_back(size);
  }
  void push_back(std::int64_t size);  // throws Failed for the ninth

  std::size_t rank() const { return rank_; }
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }
  std::int64_t operator[](std::size_t axis) const { return sizes_[axis]; }
  std::int64_t& operator[](std::size_t axis) { return sizes_[axis]; }
  bool operator==(const Dims& other) const;
  std::string text() const;  // "[1, 8, ?, 64]"

 private:
  std::array<std::int64_t, kMost> sizes_{};
  std::size_t rank_ = 0;
};

// Bytes of a dense tensor. Throws BadInput when a size is negative or the product passes `most`.
std::size_t tensor_bytes(DType dtype, const Dims& dims, std::size_t most);

// A dense tensor in memory that somebody else owns; row-major.
struct Buffer {
  void* data = nullptr;
  DType dtype = DType::float32;
  Dims dims;
};

}  // namespace tprune
