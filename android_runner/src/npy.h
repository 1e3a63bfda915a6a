// Arrays in NumPy's .npy format: little-endian, C order, plain numbers.
#pragma once
#include <string>

#include "memory.h"
#include "tensor.h"

namespace tprune {

// Reads an array into `memory`. Throws BadInput.
Buffer read_npy(const std::string& path, Memory& memory);

// Writes an array. Throws Failed.
void write_npy(const std::string& path, const Buffer& array);

}  // namespace tprune
