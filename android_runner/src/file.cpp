#include "file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"
#include "sha256.h"

namespace tprune {
namespace {

// An open regular file; closed when it goes.
class Handle {
 public:
  explicit Handle(const std::string& path) : path_(path) {
    handle_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // never waits for a pipe's other end
    if (handle_ < 0) fail(std::strerror(errno));
    struct stat facts{};
    if (::fstat(handle_, &facts) != 0 || !S_ISREG(facts.st_mode)) {
      ::close(handle_);
      fail("not a regular file");
    }
    bytes_ = facts.st_size;
  }
  ~Handle() { ::close(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  std::int64_t bytes() const { return bytes_; }

  // Reads at most `size` bytes; 0 at the end.
  std::size_t read(char* to, std::size_t size) {
    for (;;) {
      const ssize_t got = ::read(handle_, to, size);
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR) fail(std::strerror(errno));
    }
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw BadInput("cannot read " + path_ + ": " + why); }

  std::string path_;
  int handle_ = -1;
  std::int64_t bytes_ = 0;
};

void write_all(int handle, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t put = ::write(handle, contents.data(), contents.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw Failed(std::strerror(errno));
    contents.remove_prefix(static_cast<std::size_t>(put));
  }
}

}  // namespace

std::string read_file(const std::string& path, std::size_t most) {
  Handle file(path);
  if (static_cast<std::uint64_t>(file.bytes()) > most) {
    throw BadInput("cannot read " + path + ": it has " + std::to_string(file.bytes()) + " bytes; the most is " +
                   std::to_string(most));
  }
  std::string contents(static_cast<std::size_t>(file.bytes()), '\0');
  std::size_t have = 0;
  while (have < contents.size()) {
    const std::size_t got = file.read(contents.data() + have, contents.size() - have);
    if (got == 0) throw BadInput("cannot read " + path + ": it became shorter");
    have += got;
  }
  return contents;
}

std::int64_t file_bytes(const std::string& path) {
  return Handle(path).bytes();
}

std::string file_sha256(const std::string& path) {
  Handle file(path);
  Sha256 digest;
  std::array<char, 1 << 16> block;
  while (const std::size_t got = file.read(block.data(), block.size())) digest.update({block.data(), got});
  return digest.hex();
}

void write_file(const std::string& path, std::string_view contents) {
  const std::string part = path + ".part";
  const int handle = ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (handle < 0) throw Failed("cannot write " + part + ": " + std::strerror(errno));
  try {
    write_all(handle, contents);
    if (::fsync(handle) != 0 && errno != EINVAL) throw Failed(std::strerror(errno));
    if (std::rename(part.c_str(), path.c_str()) != 0) throw Failed(std::strerror(errno));
  } catch (const Failed& why) {
    ::close(handle);
    ::unlink(part.c_str());
    throw Failed("cannot write " + path + ": " + why.what());
  }
  ::close(handle);
}

void make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) == 0) return;
  const int why = errno;
  struct stat facts{};
  if (::stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode)) return;
  throw BadInput("cannot make the folder " + path + ": " + std::strerror(why));
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    throw BadInput("cannot remove " + path + ": " + std::strerror(errno));
  }
}

}  // namespace tprune
