#include "machine.h"

#include <sys/auxv.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "failure.h"
#include "process.h"

namespace tprune {

std::vector<int> possible_cpus() {
  try {
    return parse_cpus(read_fact("/sys/devices/system/cpu/possible"));
  } catch (const BadInput&) {
    return affinity();
  }
}

Machine read_machine() {
  Machine machine;
  utsname name{};
  if (::uname(&name) == 0) {
    machine.uname = std::string(name.sysname) + " " + name.release + " " + name.version + " " + name.machine;
  }
  machine.page_bytes = ::sysconf(_SC_PAGESIZE);
  machine.hwcap = ::getauxval(AT_HWCAP);
  machine.hwcap2 = ::getauxval(AT_HWCAP2);
  for (int id : possible_cpus()) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(id);
    machine.cpus.push_back({id, read_number(folder + "/cpufreq/cpuinfo_max_freq", 0),
                            read_number(folder + "/cpu_capacity", 0), read_fact(folder + "/cpufreq/scaling_governor")});
  }
  return machine;
}

}  // namespace tprune
