// The program, but for `main`: so that a test can run many of them in one process.
#pragma once
#include <string>
#include <vector>

namespace tprune {

// Does what the words after the program's name say, and returns the exit code. Says one line on stderr unless it is 0.
int run(const std::vector<std::string>& words);

}  // namespace tprune
