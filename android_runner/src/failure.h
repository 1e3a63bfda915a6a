// The three ways in which the runner ends badly. Each carries one line that names the value and what would be right.
#pragma once
#include <stdexcept>
#include <string>

namespace tprune {

// What the user gave is wrong: arguments, artefact, ids or .npy files. Exit code 2.
struct BadInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The work failed although the input looked right. Exit code 1.
struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The engine's library cannot be loaded. Exit code 3.
struct NoLibrary : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace tprune
