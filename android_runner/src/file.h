// Files, as the runner needs them: read whole and bounded, written whole or not at all.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace tprune {

// The contents of a regular file of at most `most` bytes; BadInput says what is wrong with it.
std::string read_file(const std::string& path, std::size_t most);

// Size of a regular file; BadInput when there is none.
std::int64_t file_bytes(const std::string& path);

// Lower-case hex SHA-256 of a regular file's contents.
std::string file_sha256(const std::string& path);

// Writes `path` so that it holds either what it held before or all of `contents`. Throws Failed.
void write_file(const std::string& path, std::string_view contents);

// Makes a folder whose parent exists; an existing folder is fine. Throws BadInput.
void make_folder(const std::string& path);

// Removes a file; one that is absent is fine. Throws BadInput.
void remove_file(const std::string& path);

}  // namespace tprune
