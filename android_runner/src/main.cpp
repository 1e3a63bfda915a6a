#include <csignal>

#include "run.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads stderr may go before we do
  return tprune::run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
