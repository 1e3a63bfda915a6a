// An exported artefact: what its manifest.json says, checked as far as the runner depends on it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine.h"
#include "ids.h"

namespace tprune {

// A size of a tensor at a graph's border: a number, or a name where it varies ("batch", "source", "past", "cache").
struct Size {
  std::int64_t fixed = 0;
  std::string name;  // empty: `fixed` counts
};

struct PortSpec {
  std::string name;
  DType dtype = DType::float32;
  std::vector<Size> shape;

  // The sizes when `name` has the value given for it; "batch" and the like that are not asked for throw BadInput.
  Dims dims(std::int64_t batch, std::int64_t source, std::int64_t room) const;
};

struct GraphSpec {
  std::string name;  // "encoder", "decoder_step": also the method of an ExecuTorch program
  std::string file;  // full path
  std::vector<PortSpec> inputs;
  std::vector<PortSpec> outputs;
};

// How finished hypotheses of a beam search are compared, and when it stops; as HuggingFace has it.
struct Scoring {
  enum class Stop : std::uint8_t { guess, full, patient };  // early_stopping: false, true, "never"

  double length_penalty = 1;
  Stop stop = Stop::guess;
};

struct Artefact {
  std::string id;
  GraphSpec encoder;
  GraphSpec step;
  // The decoder numbers tokens by rows of its output matrix; these are rows.
  std::int64_t start = 0;
  std::int64_t eos = 0;
  std::optional<std::int64_t> pad;  // never produced; nothing: it is not among the rows
  std::optional<std::int64_t> forced_eos;
  std::int64_t vocabulary = 0;  // rows
  Ids output_ids;               // token id of each row; empty: row i is token i
  Scoring scoring;
  std::size_t longest_source = 0;
  std::size_t longest_target = 0;  // the start token included

  std::int64_t token(std::int64_t row) const {
    return output_ids.empty() ? row : output_ids[static_cast<std::size_t>(row)];
  }
};

// Reads `folder`/manifest.json, which must be for `runtime`, and checks size and SHA-256 of its files. Throws BadInput.
Artefact read_artefact(const std::string& folder, const std::string& runtime);

// An exported image network: one graph from `image`, float32 [1, channels, height, width], to `logits`, [1, classes].
struct Classifier {
  std::string id;
  GraphSpec graph;
  Dims image;
  Dims logits;
};

// Reads the manifest of an image network in the same way.
Classifier read_classifier(const std::string& folder, const std::string& runtime);

// Compares what an opened method says of its ports with the manifest. Throws BadInput.
void check_ports(const GraphSpec& graph, const Call& call);

// Place of the port of that name among a method's ports: by name, or by `place` where the engine knows no names.
std::size_t place_of(const std::vector<Port>& ports, const std::string& name, std::size_t place);

}  // namespace tprune
