// Which row of the decoder's batch, with its caches, each beam lives in. When beams go on from others, one child of
// each stays where its parent was, and only the further ones are copied, to where beams without children were. Of these
// only the positions are copied that the two slots do not have in common already: beams part late.
#pragma once
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace tprune {

// Allocates only when constructed.
class Slots {
 public:
  explicit Slots(std::size_t beams) : slots_(beams), next_(beams), taken_(beams), common_(beams * beams) {
    std::iota(slots_.begin(), slots_.end(), std::size_t{0});
  }

  // Forgets what slots have in common: a new sentence begins.
  void start() { std::fill(common_.begin(), common_.end(), 0); }

  std::size_t operator[](std::size_t beam) const { return slots_[beam]; }

  // Lets beam i go on from what beam parents[i] was. `filled` positions are in use; `copy(from, to, first)` copies
  // those from `first` on from a slot to another.
  template <typename Copy>
  void reorder(const std::size_t* parents, std::size_t filled, const Copy& copy) {
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
      const std::size_t from = slots_[parents[beam]];
      copy(from, free, common(from, free));
      become(free, from, filled);
      next_[beam] = free++;
    }
    slots_.swap(next_);
  }

 private:
  std::size_t& common(std::size_t one, std::size_t other) { return common_[one * slots_.size() + other]; }

  void become(std::size_t slot, std::size_t other, std::size_t filled) {
    for (std::size_t third = 0; third < slots_.size(); ++third) {
      common(slot, third) = common(third, slot) = third == other ? filled : common(other, third);
    }
  }

  std::vector<std::size_t> slots_;
  std::vector<std::size_t> next_;
  std::vector<bool> taken_;
  std::vector<std::size_t> common_;  // for each pair of slots, how many positions at the beginning are the same
};

}  // namespace tprune
