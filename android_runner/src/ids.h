// Token ids as text: one sentence a line, decimal ids separated by one space.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tprune {

using Ids = std::vector<std::int64_t>;

// Reads sentences of 1 to `longest` ids, each from 0 to 2^31 - 1. Throws BadInput, which names the line.
std::vector<Ids> read_ids(const std::string& path, std::size_t longest);

// Writes sentences in the same format. Throws Failed.
void write_ids(const std::string& path, const std::vector<Ids>& sentences);

}  // namespace tprune
