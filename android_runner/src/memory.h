// Memory for tensors: zeroed, aligned to a cache line, freed together, bounded in all.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tensor.h"

namespace tprune {

class Memory {
 public:
  static constexpr std::size_t kMost = std::size_t{1} << 30;

  // A tensor of zeros. Pages that nobody touches cost nothing. Throws BadInput when there would be too much.
  Buffer tensor(DType dtype, const Dims& dims);

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  std::vector<std::unique_ptr<void, Free>> blocks_;
  std::size_t taken_ = 0;
};

}  // namespace tprune
