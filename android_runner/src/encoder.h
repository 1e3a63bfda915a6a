// The encoder of an artefact with its memory: what it gives lies where the decoder reads it.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "artefact.h"
#include "engine.h"
#include "ids.h"
#include "memory.h"

namespace tprune {

class Encoder {
 public:
  // Prepares for sentences of these lengths. `copies`: how often the decoder wants each output along its batch.
  Encoder(Engine& engine, Call& call, const GraphSpec& graph, const std::vector<Ids>& sentences, std::size_t copies);

  // Encodes one sentence. Returns ns inside the engine.
  std::int64_t run(const Ids& source);

  // What the decoder binds for output `name` of a sentence of that many tokens.
  const View& output(const std::string& name, std::size_t length) const;
  bool has(const std::string& name) const;

 private:
  struct Output {
    std::size_t place = 0;  // among the call's outputs
    const PortSpec* spec = nullptr;
    Buffer single;  // one sentence's, at the longest length
    Buffer copies;  // the same `copies` times; unused when copies is 1
  };
  struct Prepared {  // everything that depends on a sentence's length
    std::unique_ptr<View> ids;
    std::unique_ptr<View> mask;
    std::vector<std::unique_ptr<View>> outputs;      // for the encoder to write
    std::vector<std::unique_ptr<View>> for_decoder;  // empty when the encoder's own serve
    std::vector<Dims> dims;
  };

  Prepared prepare(std::size_t length);
  void collect(const Prepared& prepared);

  Engine& engine_;
  Call& call_;
  std::size_t copies_;
  Memory memory_;
  std::size_t ids_place_ = 0;
  std::optional<std::size_t> mask_place_;  // nothing: the encoder takes no mask
  Buffer ids_;
  Buffer mask_;
  std::vector<Output> outputs_;
  std::map<std::size_t, Prepared> prepared_;  // by length
};

}  // namespace tprune
