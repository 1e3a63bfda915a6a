// Which row of the decoder's batch, with its caches, each beam lives in. When beams go on from others, one child of
// each stays where its parent was, and only the further ones are copied, to where beams without children were.
#pragma once
#include <cstddef>
#include <numeric>
#include <vector>

namespace tprune {

// Allocates only when constructed.
class Slots {
 public:
  explicit Slots(std::size_t beams) : slots_(beams), next_(beams), taken_(beams) {
    std::iota(slots_.begin(), slots_.end(), std::size_t{0});
  }

  std::size_t operator[](std::size_t beam) const { return slots_[beam]; }

  // Lets beam i go on from what beam parents[i] was. `copy(from, to)` copies a slot's contents to another.
  template <typename Copy>
  void reorder(const std::size_t* parents, const Copy& copy) {
    const std::size_t none = slots_.size();
    taken_.assign(slots_.size(), false);
    for (std::size_t beam = 0; beam < slots_.size(); ++beam) {
      const std::size_t slot = slots_[parents[beam]];
      next_[beam] = taken_[slot] ? none : slot;
      taken_[slot] = true;
    }
    std::size_t free = 0;
    for (std::size_t beam = 0; beam < slots_.size(); ++beam) {
      if (next_[beam] != none) continue;
      while (taken_[free]) ++free;
      copy(slots_[parents[beam]], free);
      next_[beam] = free++;
    }
    slots_.swap(next_);
  }

 private:
  std::vector<std::size_t> slots_;
  std::vector<std::size_t> next_;
  std::vector<bool> taken_;
};

}  // namespace tprune
