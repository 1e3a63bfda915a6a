// ONNX Runtime writes one Chrome trace per session; these become one, with a process for each graph.
#pragma once
#include <string>

namespace tprune {

class ProfileMerger {
 public:
  // Adds the trace in the file `path` as a process called `name`. Throws Failed when it is no trace.
  void add(const std::string& name, const std::string& path);

  std::string text() const { return "[\n" + events_ + "\n]\n"; }

 private:
  std::string events_;
  int processes_ = 0;
};

}  // namespace tprune
