// Many runs of the runner in one process: each line on stdin holds the words of one command line, separated by tabs.
// After what a run says, stderr gets a line `== CODE`.
#include <cstdio>
#include <iostream>
#include <sstream>

#include "run.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream rest(line);
    std::vector<std::string> words;
    for (std::string word; std::getline(rest, word, '\t');) words.push_back(word);
    std::fprintf(stderr, "== %d\n", tprune::run(words));
  }
}
